<?php
// What a PHP application does with Predis. Arguments: HOST PORT, or the path of a Unix socket.
declare(strict_types=1);
error_reporting(E_ALL & ~E_DEPRECATED);
require __DIR__ . '/expect.php';
error_reporting(E_ALL & ~E_DEPRECATED);

if (stream_resolve_include_path('Predis/autoload.php') === false) {
    fail('Predis is not installed: apt-get install php-nrk-predis');
}
set_error_handler(null);
require 'Predis/autoload.php';
$where = isset($argv[2])
    ? ['scheme' => 'tcp', 'host' => $argv[1], 'port' => (int) $argv[2]]
    : ['scheme' => 'unix', 'path' => $argv[1]];
$redis = new Predis\Client($where + ['timeout' => 20.0, 'read_write_timeout' => 20.0]);

expect('SET', 'OK', (string) $redis->set('predis:a', 'one'));
expect('GET', 'one', $redis->get('predis:a'));
expect('GET of nothing', null, $redis->get('predis:none'));

$replies = $redis->pipeline(static function ($pipe): void {
    for ($i = 0; $i < 1000; $i++) {
        $pipe->incr('predis:count');
    }
});
expect('a pipeline', range(1, 1000), $replies);

$replies = $redis->transaction(static function ($tx): void {
    $tx->set('predis:a', 'two');
    $tx->get('predis:a');
});
expect('MULTI/EXEC', ['OK', 'two'], [(string) $replies[0], $replies[1]]);

$large = str_repeat(random_bytes(1024), 5 * 1024);
expect('SET of 5 MB', 'OK', (string) $redis->set('predis:large', $large));
expect('GET of 5 MB', true, $redis->get('predis:large') === $large);

$redis->rpush('predis:list', ['x']);
expect('BLPOP', ['predis:list', 'x'], $redis->blpop(['predis:list'], 5));
try {
    $redis->incr('predis:a');
    fail('INCR of a word was not refused');
} catch (Predis\Response\ServerException $error) {
    expect('its text', true, str_contains($error->getMessage(), 'not an integer'));
}
$redis->disconnect();
echo "done\n";
