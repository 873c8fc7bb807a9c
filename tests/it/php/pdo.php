<?php
// What a PHP application does with PDO.
declare(strict_types=1);
require __DIR__ . '/mysql.php';

foreach ([true, false] as $emulate) {
    $db = pdo([PDO::ATTR_EMULATE_PREPARES => $emulate, PDO::MYSQL_ATTR_LOCAL_INFILE => true]);
    $db->exec('CREATE OR REPLACE TABLE pdo (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(99), data LONGBLOB)');
    $db->beginTransaction();
    $insert = $db->prepare('INSERT INTO pdo (name) VALUES (?)');
    for ($i = 0; $i < 200; $i++) {
        $insert->execute(["name $i"]);
    }
    $db->rollBack();
    $db->beginTransaction();
    for ($i = 0; $i < 100; $i++) {
        $insert->execute(["name $i"]);
    }
    $db->commit();
    $count = $db->prepare('SELECT COUNT(*) FROM pdo WHERE name LIKE ?');
    $count->execute(['name %']);
    expect('prepared statements', 100, (int) $count->fetchColumn());
    $count->closeCursor();

    $db->setAttribute(PDO::MYSQL_ATTR_USE_BUFFERED_QUERY, false);
    $rows = $db->query('SELECT a.name FROM pdo a, pdo b');
    for ($n = 0; $rows->fetch() !== false; $n++);
    expect('rows that are not buffered', 10000, $n);
    $db->setAttribute(PDO::MYSQL_ATTR_USE_BUFFERED_QUERY, true);

    $large = random_bytes(17 << 20);
    $insert = $db->prepare("INSERT INTO pdo (name, data) VALUES ('large', ?)");
    $insert->bindValue(1, $large, PDO::PARAM_LOB);
    $insert->execute();
    $got = $db->query("SELECT data FROM pdo WHERE name = 'large'")->fetchColumn();
    expect('a BLOB of 17 MB', true, $got === $large);
    unset($got, $large);

    $file = tempnam(sys_get_temp_dir(), 'pilotfish-');
    file_put_contents($file, "one\ntwo\n");
    expect('LOCAL INFILE', 2, $db->exec("LOAD DATA LOCAL INFILE '$file' INTO TABLE pdo (name)"));
    unlink($file);
    ready_to_leave();
    unset($insert, $count, $rows, $db);
}
echo "done\n";
