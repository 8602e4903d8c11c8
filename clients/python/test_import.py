"""`larder import` from a real Redis."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from harness import LARDER, PATIENCE_S, Larder, bearer, cache, environment, json_of
from redis_server import Redis, RedisError

pytestmark = pytest.mark.skipif(
    not shutil.which("redis-server") and "CI" not in os.environ,
    reason="not installed: redis-server",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that sheds no load: the machine of a test may have other things to do."""
    config = tmp_path_factory.mktemp("config") / "larder.toml"
    config.write_text("[admission]\nlate_ms = 0\n")
    server = Larder("--config", str(config))
    try:
        yield server
        server.stop()
    finally:
        server.kill()


@pytest.fixture
def redis(authority):
    """A Redis of its own for each test."""
    redis = Redis(authority)
    yield redis
    redis.stop()


def entries(server, metadata=(), **fields) -> dict[bytes, bytes]:
    """Everything that the server has."""
    dump = server.cache().Dump(cache.DumpRequest(**fields), metadata=metadata, timeout=PATIENCE_S)
    return {one.key: one.value for part in dump for one in part.entries}


def run(server, *arguments, status: int = 0, **options) -> dict:
    """The import with `--json`: what it says of itself."""
    done = server.cli("import", "--json", *arguments, **options)
    assert done.returncode == status, done.stderr.decode()
    return json.loads(done.stdout)


def test_strings_come_with_what_is_left_of_their_time(server, redis):
    metadata = bearer(token := server.account("times"))
    odd = bytes(range(256))
    redis("SET", "plain", "value")
    redis("SET", odd, odd)
    redis("SET", "empty", "")
    redis("SET", "number", 17)
    redis("SET", "short", "s", "EX", 3600)
    told = run(server, redis.url, "--token", token)
    assert told == {
        "scanned": 5,
        "stored": 5,
        "existing": 0,
        "gone": 0,
        "refused": 0,
        "first_refusal": None,
        "skipped": {},
        "dry_run": False,
    }
    assert entries(server, metadata) == {
        b"plain": b"value",
        odd: odd,
        b"empty": b"",
        b"number": b"17",
        b"short": b"s",
    }
    stub = server.cache()

    def get(key: bytes):
        return stub.Get(cache.GetRequest(key=key), metadata=metadata, timeout=PATIENCE_S).hit

    expires = get(b"short").expire_time.ToMilliseconds()
    assert abs(expires - redis("PEXPIRETIME", "short")) < 5_000
    assert not get(b"plain").HasField("expire_time")
    added = stub.Increment(
        cache.IncrementRequest(key=b"number", delta=1), metadata=metadata, timeout=PATIENCE_S
    )
    assert added.value == 18


def test_many_keys_and_large_values_pass(server, redis):
    metadata = bearer(token := server.account("many"))
    redis.many([("SET", f"key-{number}", f"value-{number}") for number in range(20_000)])
    large = {b"large-%d" % number: bytes([number]) * (3 << 20) for number in range(5)}
    for key, value in large.items():
        redis("SET", key, value)
    told = run(server, redis.url, "--token", token)
    assert told["stored"] == told["scanned"] >= 20_005
    found = entries(server, metadata)
    assert len(found) == 20_005
    assert all(found[b"key-%d" % number] == b"value-%d" % number for number in range(20_000))
    assert {key: found[key] for key in large} == large


def test_memory_does_not_grow_with_the_source(server, redis):
    token = server.account("memory")
    value = bytes(3 << 20)
    redis.many([("SET", f"large-{number}", value) for number in range(64)])
    most_kib = 0
    arguments = ["--server", server.url, "--token", token, "--timeout", f"{PATIENCE_S}s"]
    with subprocess.Popen(
        [LARDER, "import", "--json", redis.url, *arguments],
        stdout=subprocess.PIPE,
        env=environment(),
    ) as importer:
        # The rusage of a child begins with the memory of its parent; this does not.
        while importer.poll() is None:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{importer.pid}/status").read_text()
                peaks = [line.split()[1] for line in status.splitlines() if "VmHWM" in line]
                most_kib = max(most_kib, *map(int, peaks), 0)
        told = json.loads(importer.stdout.read())
    assert (importer.returncode, told["stored"]) == (0, 64)
    # Of 192 MiB.
    assert 0 < most_kib < 128 << 10, f"{most_kib} KiB"


def test_what_has_no_counterpart_is_counted_and_named(server, redis):
    token = server.account("kinds")
    redis("SET", "string", "s")
    redis("HSET", "hash", "field", "value")
    redis.many([("LPUSH", f"list-{number}", "element") for number in range(3)])
    redis("ZADD", "zset", 1, "member")
    redis("XADD", "stream", "*", "field", "value")
    told = run(server, redis.url, "--token", token)
    assert told["stored"] == 1
    counts = {kind: skipped["count"] for kind, skipped in told["skipped"].items()}
    assert counts == {"hash": 1, "list": 3, "zset": 1, "stream": 1}
    assert told["skipped"]["hash"]["key"] == "hash"
    text = server.cli("import", redis.url, "--token", token).stdout.decode()
    assert text.startswith("1 entry imported\n6 SKIPPED: larder keeps strings only\n")
    assert "\n  3 list, one of them: list-" in text


def test_an_import_can_be_repeated_and_need_not_replace(server, redis):
    metadata = bearer(token := server.account("repeat"))
    redis("SET", "a", "old")
    assert run(server, redis.url, "--token", token)["stored"] == 1
    redis.many([("SET", "a", "new"), ("SET", "b", "new")])
    told = run(server, redis.url, "--token", token, "--on-conflict", "skip")
    assert (told["stored"], told["existing"]) == (1, 1)
    assert entries(server, metadata) == {b"a": b"old", b"b": b"new"}
    assert run(server, redis.url, "--token", token)["stored"] == 2
    assert entries(server, metadata) == {b"a": b"new", b"b": b"new"}


def test_a_pattern_a_database_and_a_namespace_are_chosen(server, redis):
    metadata = bearer(token := server.account("chosen"))
    redis.many([("SET", "session:1", "elsewhere"), ("SELECT", 3)])
    redis.many([("SET", "session:1", "1"), ("SET", "session:2", "2"), ("SET", "user:1", "u")])
    chosen = ["--match", "session:*", "--namespace", "old"]
    run(server, f"{redis.url}/3", "--token", token, *chosen)
    assert entries(server, metadata, namespace="old") == {b"session:1": b"1", b"session:2": b"2"}
    assert entries(server, metadata) == {}


def test_a_dry_run_checks_and_stores_nothing(server, redis):
    metadata = bearer(token := server.account("dry", max_keys=3))
    redis.many([("SET", f"key-{number}", "v") for number in range(5)])
    told = run(server, redis.url, "--token", token, "--dry-run", status=1)
    assert (told["dry_run"], told["stored"] + told["refused"]) == (True, 5)
    assert told["refused"] >= 2
    assert entries(server, metadata) == {}


def test_what_the_server_does_not_take_is_refused_and_said(server, redis):
    token = server.account("limits")
    redis("SETRANGE", "large", 4 << 20, "x")
    redis("SET", "k" * 2000, "v")
    redis("SET", "", "v")
    redis("SET", "good", "v")
    done = server.cli("import", redis.url, "--token", token)
    assert done.returncode == 1
    assert done.stdout.startswith(b"1 entry imported, 3 refused"), done.stdout
    assert b"3 entries refused, the first of them: " in done.stderr
    told = run(server, redis.url, "--token", token, "--match", "large", status=1)
    assert told["first_refusal"]["reason"] == "VALUE_TOO_LARGE"
    assert told["first_refusal"]["message"] == (
        "the value of large has 4194305 bytes; the server takes 3145728"
    )


def test_a_key_that_lives_longer_than_larder_allows_is_named(server, redis):
    token = server.account("long")
    redis("SET", "for-ever", "v", "EX", 11 * 365 * 86_400)
    redis("SET", "long", "v", "EX", 9 * 365 * 86_400)
    told = run(server, redis.url, "--token", token, status=1)
    assert (told["stored"], told["refused"]) == (1, 1)
    assert told["first_refusal"]["reason"] == "TTL_OUT_OF_RANGE"
    assert "for-ever expires in " in told["first_refusal"]["message"]


@contextlib.contextmanager
def impostor(answer):
    """Something that answers each read of a connection with what `answer` makes of it."""

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    while asked := connection.recv(1 << 16):
                        connection.sendall(answer(asked))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


def test_a_source_that_speaks_something_else_is_said_to(server):
    with impostor(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n<html>\n</html>") as url:
        done = server.cli("import", url)
    assert done.returncode == 1
    assert b"Redis' protocol (RESP)" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_cursor_that_never_moves_ends_the_walk(server):
    def answer(asked):
        return b"*2\r\n$1\r\n7\r\n*0\r\n" if b"SCAN" in asked else b"+OK\r\n" * asked.count(b"*")

    with impostor(answer) as url:
        done = server.cli("import", url, "--match", "a*")
    assert done.returncode == 1
    assert b"SCAN answers 7 with the same cursor" in done.stderr, done.stderr


def test_a_full_account_is_said_with_the_reason(server, redis):
    token = server.account("full", max_keys=1)
    redis.many([("SET", "a", "v"), ("SET", "b", "v")])
    told = run(server, redis.url, "--token", token, status=1)
    assert (told["stored"], told["refused"]) == (1, 1)
    assert told["first_refusal"]["code"] == "RESOURCE_EXHAUSTED"
    assert told["first_refusal"]["reason"] == "KEY_QUOTA_EXCEEDED"


def test_passwords_and_users(server, redis, tmp_path):
    token = server.account("passwords")
    redis("SET", "a", "v")
    redis("ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@read", "+@connection")
    redis("CONFIG", "SET", "requirepass", "d3fault")
    (tmp_path / "password").write_text("d3fault\n")
    plain = ["--token", token]
    address = redis.url.removeprefix("redis://")
    assert run(server, f"redis://reader:s3cret@{address}", *plain)["stored"] == 1
    assert run(server, f"redis://:d3fault@{address}", *plain)["stored"] == 1
    by_file = ["--password-file", str(tmp_path / "password")]
    assert run(server, redis.url, *plain, *by_file)["stored"] == 1
    by_variable = os.environ | {"REDISCLI_AUTH": "d3fault"}
    assert run(server, redis.url, *plain, env=by_variable)["stored"] == 1
    for url in (redis.url, f"redis://:wr0ng@{address}"):
        done = server.cli("import", url, *plain)
        assert done.returncode == 1
        assert address.encode() in done.stderr
        assert b"wr0ng" not in done.stderr


def test_encrypted_and_by_a_socket(server, redis):
    token = server.account("encrypted")
    redis("SET", "a", "v")
    trusted = ["--source-ca", str(redis.ca)]
    assert run(server, redis.tls_url, "--token", token, *trusted)["stored"] == 1
    assert run(server, redis.socket_url, "--token", token)["stored"] == 1
    done = server.cli("import", redis.tls_url, "--token", token)
    assert done.returncode == 1, "an unknown authority is trusted"


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://h:port:s3cret"])
def test_what_is_no_source_is_a_wrong_command_line(server, url):
    done = server.cli("import", url)
    assert done.returncode == 2
    assert b"redis://" in done.stderr
    assert b"s3cret" not in done.stderr


def test_keys_that_come_and_go_meanwhile_do_no_harm(server, redis):
    metadata = bearer(token := server.account("meanwhile"))
    redis.many([("SET", f"stays-{number}", "v") for number in range(5_000)])
    ended = threading.Event()
    writer = threading.Thread(target=churn, args=(redis, ended))
    writer.start()
    try:
        for _ in range(3):
            run(server, redis.url, "--token", token, "--batch", "50")
    finally:
        ended.set()
        writer.join(PATIENCE_S)
    found = entries(server, metadata)
    assert sum(key.startswith(b"stays-") for key in found) == 5_000
    assert set(found.values()) == {b"v"}


def churn(redis: Redis, ended: threading.Event) -> None:
    """Makes keys, turns them into something else, and deletes them."""
    while not ended.is_set():
        for kind in (("SET", b"v"), ("LPUSH", b"element")):
            keys = [b"comes-%d" % number for number in range(200)]
            redis.many([("DEL", *keys), *((kind[0], key, kind[1]) for key in keys)])


def test_a_source_that_dies_is_named_and_what_was_stored_is_told(server, redis):
    token = server.account("dies")
    redis.many([("SET", f"key-{number}", "v") for number in range(2_000)])
    # From its third command on, the source refuses the importer.
    redis("ACL", "SETUSER", "half", "on", ">p", "~*", "+@connection", "+scan", "+type", "+strlen")
    address = redis.url.removeprefix("redis://")
    done = server.cli("import", "--json", f"redis://half:p@{address}", "--token", token)
    assert done.returncode == 1
    assert json.loads(done.stdout)["stored"] == 0
    assert address.encode() in done.stderr
    assert b"getrange" in done.stderr.lower() or b"pttl" in done.stderr.lower()


def test_the_protocol_of_these_tests_is_right(redis):
    assert redis("ECHO", b"a\r\nb") == b"a\r\nb"
    assert redis("GET", "nothing") is None
    with pytest.raises(RedisError):
        redis("NO-SUCH-COMMAND")


def test_the_summary_is_one_object(server, redis):
    assert json_of(server.cli("import", "--json", redis.url))["scanned"] == 0
