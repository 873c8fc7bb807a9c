<?php
// Logs in and asks for little, with mysqli and with PDO. What goes wrong is said, not thrown.
declare(strict_types=1);
require __DIR__ . '/mysql.php';

try {
    expect('a statement', true, connect()->query('DO 1'));
    expect('a statement with PDO', 0, pdo()->exec('DO 1'));
    echo "done\n";
} catch (mysqli_sql_exception $error) {
    echo $error->getCode(), ' ', $error->getMessage(), "\n";
}
