<?php
// What a PHP application does with mysqli.
declare(strict_types=1);
require __DIR__ . '/mysql.php';

$db = connect();
$db->query('CREATE OR REPLACE TABLE mysqli (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(99), data LONGBLOB)');

$db->begin_transaction();
$db->query("INSERT INTO mysqli (name) VALUES ('rolled back')");
$db->rollback();
$db->begin_transaction();
$db->query("INSERT INTO mysqli (name) VALUES ('kept')");
$db->commit();
expect('a transaction', [['name' => 'kept']], $db->query('SELECT name FROM mysqli')->fetch_all(MYSQLI_ASSOC));

$insert = $db->prepare('INSERT INTO mysqli (name) VALUES (?)');
for ($i = 0; $i < 500; $i++) {
    $name = "name $i";
    $insert->bind_param('s', $name);
    $insert->execute();
}
$select = $db->prepare('SELECT COUNT(*), MAX(name) FROM mysqli WHERE name LIKE ?');
$like = 'name %';
$select->bind_param('s', $like);
$select->execute();
expect('a prepared statement', [500, 'name 99'], $select->get_result()->fetch_row());
$select->reset();

$cursor = $db->prepare('SELECT id FROM mysqli ORDER BY id');
$cursor->attr_set(MYSQLI_STMT_ATTR_CURSOR_TYPE, MYSQLI_CURSOR_TYPE_READ_ONLY);
$cursor->execute();
$cursor->bind_result($id);
for ($count = 0; $cursor->fetch(); $count++);
expect('a cursor', 501, $count);
$cursor->close();

$db->multi_query('SELECT 1; DO 0; SELECT 2, 3');
$results = [];
do {
    $result = $db->store_result();
    if ($result !== false) {
        $results[] = $result->fetch_row();
    }
} while ($db->more_results() && $db->next_result());
expect('several statements', [['1'], ['2', '3']], $results);

try {
    $db->query('SELECT * FROM nowhere');
    fail('no error');
} catch (mysqli_sql_exception $error) {
    expect('an error of the server', 1146, $error->getCode());
}

$large = str_repeat(random_bytes(64 * 1024), 1024);
$insert = $db->prepare("INSERT INTO mysqli (name, data) VALUES ('large', ?)");
$null = null;
$insert->bind_param('b', $null);
foreach (str_split($large, 1024 * 1024) as $part) {
    $insert->send_long_data(0, $part);
}
$insert->execute();
$got = $db->query("SELECT data FROM mysqli WHERE name = 'large'")->fetch_row()[0];
expect('a BLOB of 64 MB in parts', true, $got === $large);
unset($got);
$db->query("INSERT INTO mysqli (name, data) VALUES ('twice', '" . $db->real_escape_string(substr($large, 0, 20 << 20)) . "')");
$got = $db->query("SELECT data FROM mysqli WHERE name = 'twice'")->fetch_row()[0];
expect('a statement of more than 20 MB', true, $got === substr($large, 0, 20 << 20));
unset($got, $large);

$file = tempnam(sys_get_temp_dir(), 'pilotfish-');
file_put_contents($file, implode('', array_map(fn ($n) => "line $n\n", range(1, 20000))));
$db->query("LOAD DATA LOCAL INFILE '$file' INTO TABLE mysqli (name)");
unlink($file);
expect('LOCAL INFILE', '20000', $db->query("SELECT COUNT(*) FROM mysqli WHERE name LIKE 'line %'")->fetch_row()[0]);
try {
    $db->query("LOAD DATA LOCAL INFILE '/nowhere/at/all' INTO TABLE mysqli (name)");
    fail('a file that is not there');
} catch (mysqli_sql_exception | ErrorException $error) {
    expect('the session afterwards', '1', $db->query('SELECT 1')->fetch_row()[0]);
}

$db->query("CREATE OR REPLACE PROCEDURE two() BEGIN SELECT 1; SELECT 2; END");
$db->query('CALL two()')->free();
expect('a procedure', true, $db->next_result());
$db->store_result();
while ($db->more_results() && $db->next_result());

expect('statistics', true, str_starts_with($db->stat(), 'Uptime'));
expect('ping', true, $db->query('DO 1'));
expect('change_user', true, $db->change_user(who('USER'), who('PASSWORD'), who('DATABASE')));
expect('after change_user', who('DATABASE'), $db->query('SELECT DATABASE()')->fetch_row()[0]);
ready_to_leave();
$db->close();
echo "done\n";
