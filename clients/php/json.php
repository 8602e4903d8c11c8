<?php
// larder from PHP without gRPC: JSON over HTTP, with the extension curl.

declare(strict_types=1);

/** A call failed; $reason is one of docs/errors.md. */
final class LarderError extends RuntimeException
{
    public function __construct(
        string $message,
        public readonly string $status,
        public readonly string $reason,
        public readonly bool $temporary,
    ) {
        parent::__construct($message);
    }
}

final class Larder
{
    private readonly CurlHandle $curl;

    public function __construct(private string $url, private string $token, private int $timeoutMs = 1000)
    {
        // One handle, so that the connection is used again.
        $this->curl = curl_init();
    }

    public function get(string $key): ?string
    {
        $reply = $this->call('Get', ['key' => base64_encode($key)]);
        // An empty value stands in no JSON.
        return isset($reply['hit']) ? base64_decode($reply['hit']['value'] ?? '') : null;
    }

    public function set(string $key, string $value, int $ttlSeconds): void
    {
        $this->call('Set', [
            'key' => base64_encode($key),
            'value' => base64_encode($value),
            'ttl' => "{$ttlSeconds}s",
        ]);
    }

    /** @param array<string, mixed> $request */
    public function call(string $method, array $request): array
    {
        curl_setopt_array($this->curl, [
            CURLOPT_URL => "{$this->url}/larder.cache.v1.CacheService/{$method}",
            CURLOPT_HTTPHEADER => [
                'content-type: application/json',
                "authorization: Bearer {$this->token}",
                // The server gives up when the caller does.
                "connect-timeout-ms: {$this->timeoutMs}",
            ],
            CURLOPT_POSTFIELDS => json_encode((object) $request, JSON_THROW_ON_ERROR),
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT_MS => $this->timeoutMs,
        ]);
        $body = curl_exec($this->curl);
        if ($body === false) {
            throw new LarderError(curl_error($this->curl), 'unavailable', '', true);
        }
        $reply = json_decode($body, true, flags: JSON_THROW_ON_ERROR);
        if (curl_getinfo($this->curl, CURLINFO_RESPONSE_CODE) !== 200) {
            throw self::error($reply);
        }
        return $reply;
    }

    private static function error(array $error): LarderError
    {
        foreach ($error['details'] ?? [] as $detail) {
            if ($detail['type'] === 'google.rpc.ErrorInfo') {
                $info = $detail['debug'] ?? [];
            }
        }
        return new LarderError(
            $error['message'] ?? '',
            $error['code'],
            $info['reason'] ?? '',
            ($info['metadata']['temporary'] ?? '') === 'true',
        );
    }
}

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
