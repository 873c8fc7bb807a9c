<?php
// What a PHP application does with phpredis. Arguments: HOST PORT, or the path of a Unix socket.
declare(strict_types=1);
require __DIR__ . '/expect.php';

if (!extension_loaded('redis')) {
    fail('phpredis is not installed: apt-get install php-redis');
}
$redis = new Redis();
$redis->connect($argv[1], (int) ($argv[2] ?? 0), 20.0);
$redis->setOption(Redis::OPT_READ_TIMEOUT, 20.0);

expect('SET', true, $redis->set('phpredis:a', 'one'));
expect('GET', 'one', $redis->get('phpredis:a'));
expect('GET of nothing', false, $redis->get('phpredis:none'));

$pipe = $redis->pipeline();
for ($i = 0; $i < 1000; $i++) {
    $pipe->incr('phpredis:count');
}
expect('a pipeline', range(1, 1000), $pipe->exec());

$redis->watch('phpredis:a');
expect('MULTI/EXEC', [true, 'two'], $redis->multi()->set('phpredis:a', 'two')->get('phpredis:a')->exec());

$large = str_repeat(random_bytes(1024), 5 * 1024);
expect('SET of 5 MB', true, $redis->set('phpredis:large', $large));
expect('GET of 5 MB', true, $redis->get('phpredis:large') === $large);

$redis->rPush('phpredis:list', 'x');
expect('BLPOP', ['phpredis:list', 'x'], $redis->blPop(['phpredis:list'], 5));
expect('an error of the server', false, $redis->rawCommand('INCR', 'phpredis:a'));
expect('its text', true, str_contains((string) $redis->getLastError(), 'not an integer'));
expect('SELECT', true, $redis->select(3));
expect('GET there', false, $redis->get('phpredis:a'));
$redis->close();
echo "done\n";
