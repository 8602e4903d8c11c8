<?php
// larder from PHP, with JSON over HTTP: each function is one thing that a client meets.
// The servers are named by the environment; clients/README.md says how.

declare(strict_types=1);

require __DIR__ . '/larder.php';

const TALK = 'rpc.Cache';

function connect(string $server, int $timeoutMs = 10_000, array $headers = []): Larder
{
    return new Larder("http://{$server}", getenv('TOUR_TOKEN'), $timeoutMs, $headers);
}

function check(bool $holds, string $otherwise): void
{
    if (!$holds) {
        throw new RuntimeException($otherwise);
    }
}

/** The error that a call ends with. */
function errorOf(callable $call): LarderError
{
    try {
        $call();
    } catch (LarderError $error) {
        return $error;
    }
    throw new RuntimeException('the call went well');
}

/** What clients/service-config.json says of a method; null if it is to be tried once. */
function retryPolicy(string $method): ?array
{
    $config = json_decode(file_get_contents(getenv('TOUR_SERVICE_CONFIG')), true, flags: JSON_THROW_ON_ERROR);
    foreach ($config['methodConfig'] ?? [] as $each) {
        $name = ['service' => 'larder.cache.v1.CacheService', 'method' => $method];
        if (in_array($name, $each['name'], true)) {
            return $each['retryPolicy'];
        }
    }
    return null;
}

/**
 * Makes a call as the service configuration says, on the next server if one fails.
 *
 * @param list<Larder> $servers
 */
function repeated(array $servers, string $method, array $request): array
{
    $policy = retryPolicy($method);
    for ($attempts = 1; ; $attempts++) {
        try {
            return $servers[($attempts - 1) % count($servers)]->call($method, $request);
        } catch (LarderError $error) {
            $codes = array_map(strtolower(...), $policy['retryableStatusCodes'] ?? []);
            if ($attempts >= ($policy['maxAttempts'] ?? 1) || !in_array($error->status, $codes, true)) {
                throw $error;
            }
            $wait = (float) $policy['initialBackoff'] * $policy['backoffMultiplier'] ** ($attempts - 1);
            $wait = min($wait, (float) $policy['maxBackoff']);
            // 20 % more or less, so that clients do not come back together.
            usleep((int) ($wait * random_int(800_000, 1_200_000)));
        }
    }
}

/** Stores a value and reads it back, as an account's token. */
function talk(Larder $cache): void
{
    $cache->call('Store', ['key' => 'gopher', 'val' => base64_encode('con')], TALK);
    $reply = $cache->call('Get', ['key' => 'gopher'], TALK);
    check(base64_decode($reply['val']) === 'con', json_encode($reply));
}

/** Stores more keys than the account may have, and reads why not. */
function quota(Larder $cache): void
{
    $cache->call('Store', ['key' => 'second', 'val' => base64_encode('v')], TALK);
    $error = errorOf(fn () => $cache->call('Store', ['key' => 'third', 'val' => base64_encode('v')], TALK));
    check([$error->status, $error->reason] === ['failed_precondition', 'KEY_QUOTA_EXCEEDED'], $error->getMessage());
    [$violation] = $error->details['google.rpc.QuotaFailure']['violations'];
    check(str_contains($violation['subject'], 'tour'), json_encode($violation));
}

/** Gives up on a slow server, which then leaves the call undone. */
function deadline(): void
{
    $late = ['key' => 'late', 'val' => base64_encode('v')];
    $error = errorOf(fn () => connect(getenv('TOUR_SLOW_SERVER'), 1000)->call('Store', $late, TALK));
    check($error->status === 'deadline_exceeded', $error->getMessage());
    // Nothing later: it was not stored behind the caller's back.
    $slow = connect(getenv('TOUR_SLOW_SERVER'));
    $error = errorOf(fn () => $slow->call('Get', ['key' => 'late'], TALK));
    check($error->status === 'not_found', $error->getMessage());
}

/** Has a store checked but not carried out. */
function dryRun(Larder $cache): void
{
    $dry = connect(getenv('TOUR_SERVER'), headers: ['dry-run: 1']);
    $dry->call('Store', ['key' => 'gopher', 'val' => base64_encode('phercon')], TALK);
    check(($dry->headers['dry-run'] ?? '') === '1', json_encode($dry->headers));
    $reply = $cache->call('Get', ['key' => 'gopher'], TALK);
    check(base64_decode($reply['val']) === 'con', json_encode($reply));
}

/** Streams every entry. */
function dump(): void
{
    $entries = [];
    // Of the account without a token.
    $all = new Larder('http://' . getenv('TOUR_SERVER'), null, 30_000);
    $all->stream(TALK, 'Dump', [], function (array $item) use (&$entries): void {
        $entries[$item['key']] = base64_decode($item['val']);
    });
    check(count($entries) === (int) getenv('TOUR_ENTRIES'), count($entries) . ' entries');
    foreach ($entries as $key => $value) {
        check($value === "value of {$key}", "{$key} has {$value}");
    }
}

/** Reads from a server that fails twice, and does not notice. */
function retry(Larder $faulty): void
{
    $reply = repeated([$faulty], 'Get', ['key' => base64_encode('unavailable-twice')]);
    check(base64_decode($reply['hit']['value']) === 'value of unavailable-twice', json_encode($reply));
}

/** Is told at once what another attempt would not change, or might do twice. */
function once(Larder $faulty): void
{
    $get = fn (string $key) => repeated([$faulty], 'Get', ['key' => base64_encode($key)]);
    $error = errorOf(fn () => $get('not-found'));
    check($error->status === 'not_found', $error->getMessage());
    $error = errorOf(fn () => $get('failed-precondition'));
    check($error->status === 'failed_precondition', $error->getMessage());
    $increment = ['key' => base64_encode('unavailable-twice'), 'delta' => '1'];
    $error = errorOf(fn () => repeated([$faulty], 'Increment', $increment));
    check($error->status === 'unavailable', $error->getMessage());
}

/** Goes on with the second server when the first one dies. */
function failover(): void
{
    $new = fn (string $server) => new Larder("http://{$server}", null, 10_000);
    $pair = array_map($new, explode(',', getenv('TOUR_PAIR')));
    repeated($pair, 'Set', ['key' => base64_encode('before'), 'value' => base64_encode('v')]);
    report('failover', 'waiting');
    fgets(STDIN);
    repeated($pair, 'Set', ['key' => base64_encode('after'), 'value' => base64_encode('v')]);
}

function report(string $behaviour, string $outcome, string $why = ''): void
{
    echo json_encode(compact('behaviour', 'outcome', 'why')), "\n";
}

$cache = connect(getenv('TOUR_SERVER'));
$faulty = new Larder('http://' . getenv('TOUR_FAULTY_JSON_SERVER'), null, 10_000);
$tour = [
    'talk' => fn () => talk($cache),
    'quota' => fn () => quota($cache),
    'deadline' => deadline(...),
    'dry-run' => fn () => dryRun($cache),
    'dump' => dump(...),
    'retry' => fn () => retry($faulty),
    'once' => fn () => once($faulty),
    'failover' => failover(...),
];
foreach ($tour as $behaviour => $run) {
    try {
        $run();
        report($behaviour, 'passed');
    } catch (Throwable $error) {
        report($behaviour, 'failed', $error::class . ': ' . $error->getMessage());
    }
}
