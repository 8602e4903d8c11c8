<?php
// An entry, a miss and an error: `php json.php http://localhost:5051 TOKEN`.

declare(strict_types=1);

require __DIR__ . '/larder.php';

[, $url, $token] = $argv;
$cache = new Larder($url, $token);
$cache->set('gopher', "con\x00\xff", 60);
echo json_encode([
    'gopher' => bin2hex($cache->get('gopher')),
    'none' => $cache->get('none'),
]), "\n";
try {
    $cache->set('', 'v', 60);
} catch (LarderError $error) {
    echo json_encode([$error->status, $error->reason, $error->temporary]), "\n";
}
