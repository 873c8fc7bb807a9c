<?php
// The smallest shop: it knows nothing of regions, masters or replicas, only of localhost.
header('Content-Type: text/plain');
try {
    $redis = new Redis();
    $redis->connect('127.0.0.1', 6379, 5.0, null, 0, 15.0);
    $order = $redis->incr('orders');
    echo getenv('REGION'), " took order $order\n";
} catch (RedisException $error) {
    http_response_code(503);
    echo getenv('REGION'), ' cannot take orders: ', $error->getMessage(), "\n";
}
