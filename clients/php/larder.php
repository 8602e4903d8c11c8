<?php
// larder from PHP without gRPC: JSON over HTTP, with the extension curl.

declare(strict_types=1);

/** A call failed; $reason is one of docs/errors.md. */
final class LarderError extends RuntimeException
{
    /** @param array<string, array<string, mixed>> $details By their types. */
    public function __construct(
        string $message,
        public readonly string $status,
        public readonly string $reason = '',
        public readonly bool $temporary = false,
        public readonly array $details = [],
    ) {
        parent::__construct($message);
    }

    /** @param array<string, mixed> $error Connect's error. */
    public static function of(array $error): self
    {
        $details = array_column($error['details'] ?? [], 'debug', 'type');
        $info = $details['google.rpc.ErrorInfo'] ?? [];
        return new self(
            $error['message'] ?? '',
            $error['code'],
            $info['reason'] ?? '',
            ($info['metadata']['temporary'] ?? '') === 'true',
            $details,
        );
    }
}

final class Larder
{
    private readonly CurlHandle $curl;

    /** @var array<string, string> The headers of the answer that came last. */
    public array $headers = [];

    /** @param array<string, string> $more Headers of each call. */
    public function __construct(
        private string $url,
        private ?string $token,
        private int $timeoutMs = 1000,
        private array $more = [],
    ) {
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
    public function call(
        string $method,
        array $request,
        string $service = 'larder.cache.v1.CacheService',
    ): array {
        $this->prepare("{$service}/{$method}", 'application/json', self::json($request));
        curl_setopt($this->curl, CURLOPT_RETURNTRANSFER, true);
        $body = curl_exec($this->curl);
        if ($body === false) {
            throw $this->lost();
        }
        return $this->answer($body);
    }

    /**
     * A call that answers with a stream; gives each message away as it comes.
     *
     * @param array<string, mixed> $request
     * @param callable(array<string, mixed>): void $onMessage
     */
    public function stream(string $service, string $method, array $request, callable $onMessage): void
    {
        $json = self::json($request);
        $body = pack('CN', 0, strlen($json)) . $json;
        $this->prepare("{$service}/{$method}", 'application/connect+json', $body);
        // Each message stands after a byte of flags and its length; the last says how it ended.
        [$held, $end] = ['', null];
        $take = function (CurlHandle $curl, string $came) use (&$held, &$end, $onMessage): int {
            $held .= $came;
            if (curl_getinfo($curl, CURLINFO_RESPONSE_CODE) !== 200) {
                return strlen($came);
            }
            $at = 0;
            while (strlen($held) - $at >= 5) {
                ['flags' => $flags, 'length' => $length] = unpack('Cflags/Nlength', $held, $at);
                if (strlen($held) - $at < 5 + $length) {
                    break;
                }
                $message = json_decode(substr($held, $at + 5, $length), true, flags: JSON_THROW_ON_ERROR);
                $at += 5 + $length;
                if ($flags & 2) {
                    $end = $message;
                } else {
                    $onMessage($message);
                }
            }
            $held = substr($held, $at);
            return strlen($came);
        };
        curl_setopt($this->curl, CURLOPT_WRITEFUNCTION, $take);
        if (!curl_exec($this->curl)) {
            throw $this->lost();
        }
        if (curl_getinfo($this->curl, CURLINFO_RESPONSE_CODE) !== 200) {
            $this->answer($held);
        }
        if ($end === null) {
            throw new LarderError('the stream ended before its last message', 'unavailable');
        }
        if (isset($end['error'])) {
            throw LarderError::of($end['error']);
        }
    }

    private function prepare(string $path, string $type, string $body): void
    {
        // What was set for another call is forgotten, and the connection kept.
        curl_reset($this->curl);
        $this->headers = [];
        $keep = function (CurlHandle $curl, string $line): int {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $this->headers[strtolower($name)] = trim($value);
            return strlen($line);
        };
        curl_setopt_array($this->curl, [
            CURLOPT_URL => "{$this->url}/{$path}",
            CURLOPT_HTTPHEADER => [
                "content-type: {$type}",
                ...($this->token === null ? [] : ["authorization: Bearer {$this->token}"]),
                // The server gives up when the caller does.
                "connect-timeout-ms: {$this->timeoutMs}",
                ...$this->more,
            ],
            CURLOPT_POSTFIELDS => $body,
            CURLOPT_HEADERFUNCTION => $keep,
            CURLOPT_TIMEOUT_MS => $this->timeoutMs,
        ]);
    }

    private function lost(): LarderError
    {
        $isLate = curl_errno($this->curl) === CURLE_OPERATION_TIMEDOUT;
        $status = $isLate ? 'deadline_exceeded' : 'unavailable';
        return new LarderError(curl_error($this->curl), $status, temporary: true);
    }

    private function answer(string $body): array
    {
        $code = curl_getinfo($this->curl, CURLINFO_RESPONSE_CODE);
        if (curl_getinfo($this->curl, CURLINFO_CONTENT_TYPE) !== 'application/json') {
            // Not from larder, but from something on the way.
            throw new LarderError("HTTP status {$code}", $code >= 502 && $code <= 504 ? 'unavailable' : 'unknown');
        }
        $reply = json_decode($body, true, flags: JSON_THROW_ON_ERROR);
        return $code === 200 ? $reply : throw LarderError::of($reply);
    }

    /** @param array<string, mixed> $request */
    private static function json(array $request): string
    {
        return json_encode((object) $request, JSON_THROW_ON_ERROR);
    }
}
