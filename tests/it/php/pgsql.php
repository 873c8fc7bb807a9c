<?php
declare(strict_types=1);
// PDO through the sidecar: a transaction, prepared statements of both kinds, an error and what it is called.
require __DIR__ . '/expect.php';

if (!extension_loaded('pdo_pgsql')) {
    fail('PDO for PostgreSQL is not installed: apt-get install php-pgsql');
}
$where = isset($argv[2]) ? "host=$argv[1];port=$argv[2]" : 'host=' . $argv[1];
$options = [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION];
$db = new PDO("pgsql:$where;dbname=postgres;user=postgres", null, null, $options);
$db->exec('CREATE TEMPORARY TABLE t (id int PRIMARY KEY, name text)');
$db->beginTransaction();
$insert = $db->prepare('INSERT INTO t VALUES (?, ?)');
for ($id = 1; $id <= 100; $id++) {
    $insert->execute([$id, "name $id"]);
}
$db->commit();
expect('rows', 100, (int) $db->query('SELECT count(*) FROM t')->fetchColumn());
$db->setAttribute(PDO::ATTR_EMULATE_PREPARES, true);
$select = $db->prepare('SELECT name FROM t WHERE id = :id');
$select->execute(['id' => 42]);
expect('a name', 'name 42', $select->fetchColumn());
try {
    $db->exec('SELECT nonsense');
    fail('nonsense was no error');
} catch (PDOException $error) {
    expect('SQLSTATE', '42703', $error->getCode());
}
$rows = array_map(fn ($n) => "$n\tcopied $n", range(1000, 1999));
$db->pgsqlCopyFromArray('t', $rows);
expect('copied', 1100, count($db->pgsqlCopyToArray('t')));
echo "done\n";
