<?php
// Like WordPress' wpdb: a statement that fails with 2006 is sent again on a new connection, and with any other
// error it is not.
declare(strict_types=1);
require __DIR__ . '/mysql.php';

// mysqlnd notes every connection that ends under it. One of these notes would mean that we spoke out of turn.
set_error_handler(static function (int $level, string $message): bool {
    if (str_contains($message, 'out of order')) {
        fail($message);
    }
    return true;
});

$db = connect();
$tries = 0;
function run(string $statement): string
{
    global $db, $tries;
    for ($tries = 1; ; $tries++) {
        try {
            $result = $db->query($statement);
            return $result === true ? 'ok' : (string) $result->fetch_row()[0];
        } catch (mysqli_sql_exception $error) {
            if ($error->getCode() !== 2006 || $tries > 5) {
                return "error {$error->getCode()}";
            }
        }
        try {
            $db = connect();
        } catch (mysqli_sql_exception $error) {
            return "error {$error->getCode()}";
        }
    }
}

echo "ready\n";
while (($line = fgets(STDIN)) !== false) {
    $said = run(trim($line));
    echo "$said after $tries\n";
}
