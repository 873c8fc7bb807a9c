<?php
// What the scripts share. They end with a message and exit code 1 at the first surprise.
declare(strict_types=1);

error_reporting(E_ALL);
set_error_handler(static function (int $level, string $message): bool {
    throw new ErrorException($message, 0, $level);
});

function fail(string $why): never
{
    fwrite(STDERR, "$why\n");
    exit(1);
}

function expect(string $what, mixed $wanted, mixed $got): void
{
    if ($wanted !== $got) {
        fail("$what: wanted " . var_export($wanted, true) . ', got ' . var_export($got, true));
    }
}
