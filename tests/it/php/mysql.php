<?php
// What the MySQL scripts share. Arguments: HOST PORT, or the path of a Unix socket; environment: who logs in.
declare(strict_types=1);
require __DIR__ . '/expect.php';

const SHOP = ['user' => 'shop', 'password' => 'shop-s3cret', 'database' => 'shop'];

function who(string $what): string
{
    return getenv("SHOP_$what") ?: SHOP[strtolower($what)];
}

function socket(): ?string
{
    global $argv;
    return isset($argv[2]) ? null : $argv[1];
}

function connect(): mysqli
{
    global $argv;
    mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
    $db = mysqli_init();
    $db->options(MYSQLI_OPT_LOCAL_INFILE, true);
    $host = socket() === null ? $argv[1] : 'localhost';
    $db->real_connect($host, who('USER'), who('PASSWORD'), who('DATABASE'), (int) ($argv[2] ?? 0), socket());
    return $db;
}

function pdo(array $options = []): PDO
{
    global $argv;
    $where = socket() === null ? "host=$argv[1];port=$argv[2]" : 'unix_socket=' . socket();
    return new PDO("mysql:$where;dbname=" . who('DATABASE'), who('USER'), who('PASSWORD'), $options);
}

/** Whoever runs this looks at the session now. */
function ready_to_leave(): void
{
    echo "ready\n";
    fgets(STDIN);
}
