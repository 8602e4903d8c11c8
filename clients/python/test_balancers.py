"""The files of `deploy/` for nginx, HAProxy and Envoy: calls as they are without them."""

import signal
import socket
import ssl
import subprocess

import grpc
import h2.config
import h2.connection
import pytest
from google.rpc import error_details_pb2

from balancers import TOKENS, Callers, Pair, installed, secret, wait_for, wait_until_asked
from harness import PATIENCE_S, bearer, cache, cache_grpc, detail, entry, refused
from raw import GRPC, Exchange

# Together more than any window or buffer on the way.
ENTRIES, VALUE_BYTES = 3_000, 10_000


@pytest.fixture(params=installed())
def pair(request, tmp_path, authority):
    """Two servers behind a balancer."""
    with Pair(request.param, tmp_path, authority) as pair:
        yield pair


@pytest.fixture
def stub(pair):
    """A client of the balancer that tries everything once."""
    with pair.channel() as channel:
        yield cache_grpc.CacheServiceStub(channel)


def keys_of(node, number: int | None) -> int:
    """How many keys a server has of the account of a token, or of the anonymous one."""
    metadata = () if number is None else bearer(secret(number))
    with node.direct() as stub:
        reply = stub.GetUsage(cache.GetUsageRequest(), metadata=metadata, timeout=PATIENCE_S)
    return reply.quota_usage.key_count


def holder(pair, number: int | None, key: bytes):
    """The one server that has a key, and the other."""
    metadata = () if number is None else bearer(secret(number))

    def has(node) -> bool:
        with node.direct() as stub:
            reply = stub.Get(cache.GetRequest(key=key), metadata=metadata, timeout=PATIENCE_S)
        return reply.HasField("hit")

    held = [has(node) for node in pair.nodes]
    assert sorted(held) == [False, True], f"{held}: it must be on one server"
    index = held.index(True)
    return pair.nodes[index], pair.nodes[1 - index]


def test_large_values_loads_and_dumps_pass(stub):
    # Metadata too is as large as larder takes it: 16 KiB in all.
    metadata = (*bearer(secret(0)), ("x-long", "l" * 15_000))
    value = bytes(3 << 20)
    stub.Set(cache.SetRequest(key=b"large", value=value), metadata=metadata, timeout=PATIENCE_S)
    reply = stub.Get(cache.GetRequest(key=b"large"), metadata=metadata, timeout=PATIENCE_S)
    assert reply.hit.value == value

    def parts():
        for start in range(0, ENTRIES, 100):
            yield cache.LoadRequest(
                entries=[
                    entry.Entry(key=b"key-%05d" % number, value=bytes(VALUE_BYTES))
                    for number in range(start, start + 100)
                ]
            )

    list(stub.Load(parts(), metadata=metadata, timeout=PATIENCE_S))
    dump = stub.Dump(cache.DumpRequest(prefix=b"key-"), metadata=metadata, timeout=PATIENCE_S)
    keys = [one.key for part in dump for one in part.entries]
    assert sorted(keys) == [b"key-%05d" % number for number in range(ENTRIES)]


def test_errors_keep_their_details(stub):
    with refused("INVALID_ARGUMENT", "KEY_EMPTY") as refusal:
        stub.Set(cache.SetRequest(), timeout=PATIENCE_S)
    assert refusal.field() == "key"
    with refused("UNAUTHENTICATED", "TOKEN_INVALID"):
        stub.Get(cache.GetRequest(key=b"k"), metadata=bearer("lrd_nobody"), timeout=PATIENCE_S)
    # A status after messages of a stream, whose head has gone.
    with refused("INVALID_ARGUMENT", "KEY_TOO_LONG") as refusal:
        stub.Get(cache.GetRequest(key=bytes(2000)), timeout=PATIENCE_S)
    assert detail(refusal.error, error_details_pb2.BadRequest).field_violations


class Bodiless(Exchange):
    """A request whose body does not come."""

    def send(self, unsent: memoryview) -> memoryview:
        """Sends none of it."""
        return unsent


def test_a_deadline_reaches_the_server_and_its_answer_the_client(pair):
    context = ssl.create_default_context(cadata=pair.authority.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    config = h2.config.H2Configuration(header_encoding=None)
    exchange = Bodiless(h2.connection.H2Connection(config))
    # A request without a body: the server waits for it until the time is over. A stock client
    # would be the first to give up.
    headers = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/larder.cache.v1.CacheService/Get"),
        ("content-type", GRPC),
        ("te", "trailers"),
        ("grpc-timeout", "100m"),
    ]
    with (
        socket.create_connection(("127.0.0.1", pair.port), timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        exchange.start(connection)
        assert exchange.ask(headers, b"never sent").outcome() == (
            "DEADLINE_EXCEEDED",
            "NOT_STARTED",
        )


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_json_passes_too(pair, version):
    asked = subprocess.run(
        [
            *(
                "curl",
                "--silent",
                "--show-error",
                version,
                "--noproxy",
                "*",
                "--cacert",
                "/dev/stdin",
            ),
            *("--header", "content-type: application/json", "--data", '{"key":"aw=="}'),
            f"https://{pair.address}/larder.cache.v1.CacheService/Get",
        ],
        input=pair.authority.cert_pem.bytes(),
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert b"miss" in asked.stdout, asked.stdout + asked.stderr


def test_a_token_has_one_server_and_tokens_have_both(pair, stub):
    for number in (*range(TOKENS), None):
        metadata = () if number is None else bearer(secret(number))
        for repeat in range(10):
            request = cache.SetRequest(key=b"%s-%d" % (str(number).encode(), repeat))
            stub.Set(request, metadata=metadata, timeout=PATIENCE_S)
    counts = [keys_of(node, 0) for node in pair.nodes]
    assert sum(counts) == 10 * TOKENS
    assert all(count % 10 == 0 for count in counts), "a token went to both"
    assert min(counts) > 0, "one server has all tokens"
    assert sorted(keys_of(node, None) for node in pair.nodes) == [0, 10]


def test_what_a_client_says_of_its_address_is_not_believed(pair, stub):
    forwarded = (("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9"))
    with pytest.raises(grpc.RpcError):
        stub.Get(cache.GetRequest(), metadata=forwarded, timeout=PATIENCE_S)

    def logs() -> str:
        return "".join(node.larder.stderr() for node in pair.nodes)

    wait_for(lambda: "KEY_EMPTY" in logs(), "the call is not in the access log")
    assert "203.0.113.9" not in logs()


def ask(stub, number: int) -> None:
    """Idempotent calls, as a client makes them."""
    metadata = bearer(secret(number))
    key = b"key-%d" % number
    stub.Set(cache.SetRequest(key=key, value=b"v"), metadata=metadata, timeout=PATIENCE_S)
    stub.Get(cache.GetRequest(key=key), metadata=metadata, timeout=PATIENCE_S)


def test_no_idempotent_call_fails_when_a_server_dies(pair):
    with Callers(pair, ask) as callers:
        for node in pair.nodes:
            callers.wait_for_more()
            node.die()
            callers.wait_for_more()
            node.start()
            wait_until_asked(node, callers)
    assert callers.errors == []


def test_no_idempotent_call_fails_during_a_rolling_restart(pair):
    with Callers(pair, ask) as callers:
        for node in [*pair.nodes, *pair.nodes]:
            callers.wait_for_more()
            node.end()
            callers.wait_for_more()
            node.start()
            wait_until_asked(node, callers)
    assert callers.errors == []


def fill(stub) -> None:
    """Stores more than can be on its way at a time."""
    for start in range(0, ENTRIES, 100):
        requests = [
            cache.SetRequest(key=b"key-%05d" % number, value=bytes(VALUE_BYTES))
            for number in range(start, start + 100)
        ]
        stub.BatchSet(cache.BatchSetRequest(requests=requests), timeout=PATIENCE_S)


def test_a_server_is_told_of_a_call_that_was_cancelled(pair, stub):
    fill(stub)
    dump = stub.Dump(cache.DumpRequest(), timeout=PATIENCE_S)
    next(dump)
    dump.cancel()

    def cancelled() -> bool:
        lines = "".join(node.larder.stderr() for node in pair.nodes).splitlines()
        return any("Dump" in line and "CANCELLED" in line for line in lines)

    wait_for(cancelled, "no server ended the dump")


def test_a_client_that_does_not_read_holds_up_no_other(pair, stub):
    fill(stub)
    # More than one, on one connection and on others: between the balancer and the server they
    # may share one. None ends by itself before this test does.
    dumps = [stub.Dump(cache.DumpRequest(), timeout=3600) for _ in range(3)]
    with pair.channel() as another:
        other = cache_grpc.CacheServiceStub(another)
        dumps += [other.Dump(cache.DumpRequest(), timeout=3600) for _ in range(3)]
        for dump in dumps:
            next(dump)
        for repeat in range(50):
            with pair.channel() as fresh:
                reader = cache_grpc.CacheServiceStub(fresh if repeat % 10 == 0 else another)
                reply = reader.Get(cache.GetRequest(key=b"key-00000"), timeout=5)
                assert len(reply.hit.value) == VALUE_BYTES
        for dump in dumps:
            dump.cancel()


def test_a_dump_that_is_cut_does_not_end_well(pair, stub):
    fill(stub)
    holds, _ = holder(pair, None, b"key-00000")
    dump = stub.Dump(cache.DumpRequest(), timeout=PATIENCE_S)
    next(dump)
    holds.die()
    with pytest.raises(grpc.RpcError) as cut:
        list(dump)
    # HAProxy ends it as if it were whole, but for the status, which is missing.
    expected = {"haproxy": "UNKNOWN", "nginx": "INTERNAL", "envoy": "INTERNAL"}
    assert cut.value.code().name == expected[pair.kind.name], cut.value


def test_a_server_that_hangs_is_noticed_by_those_who_check(pair, stub):
    if pair.kind.name == "nginx":
        pytest.skip("nginx has no checks of its own: a hanging server's callers wait")
    stub.Set(cache.SetRequest(key=b"k"), timeout=PATIENCE_S)
    holds, _ = holder(pair, None, b"k")
    holds.larder.process.send_signal(signal.SIGSTOP)
    try:

        def answers() -> bool:
            try:
                stub.Get(cache.GetRequest(key=b"k"), timeout=1)
            except grpc.RpcError:
                return False
            return True

        wait_for(answers, f"the calls go on to a server that hangs\n{pair.log()}")
    finally:
        holds.larder.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    "header",
    [b"PROXY TCP4 203.0.113.9 10.0.0.1 5000 5051\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"],
)
def test_a_header_of_the_proxy_protocol_ends_the_connection(server, header):
    host, port = server.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(header + bytes(12) + b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = b""
        while received := connection.recv(65536):
            answer += received
    # It has ended, and answered nothing in between.
    assert b" 200 " not in answer
