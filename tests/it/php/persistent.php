<?php
// Persistent connections of phpredis while the primary moves: one whose object is kept, one that was given back
// to the pool. Says "ready", waits for a line, and goes on. Arguments as for phpredis.php.
declare(strict_types=1);
require __DIR__ . '/expect.php';

if (!extension_loaded('redis')) {
    fail('phpredis is not installed: apt-get install php-redis');
}
function connect(string $id): Redis
{
    global $argv;
    $redis = new Redis();
    $redis->pconnect($argv[1], (int) ($argv[2] ?? 0), 20.0, $id);
    $redis->setOption(Redis::OPT_READ_TIMEOUT, 20.0);
    return $redis;
}
$kept = connect('kept');
expect('SET', true, $kept->set('before:kept', '1'));
$pooled = connect('pooled');
expect('SET', true, $pooled->set('before:pooled', '1'));
unset($pooled);

echo "ready\n";
fgets(STDIN);

expect('SET on the kept object', true, $kept->set('after:kept', '2'));
expect('SET on one from the pool', true, connect('pooled')->set('after:pooled', '2'));
echo "done\n";
