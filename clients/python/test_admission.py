"""What the server lets in, and how long it lasts, as a stock client sees it."""

import threading
import time

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from harness import PATIENCE_S, bearer, cache
from observed import parse, scrape

SHORT = """
[admission]
max_streams_per_account = 1
[deadlines]
default_seconds = 1
max_seconds = 2
"""


def details_of(error: grpc.RpcError) -> tuple[str, float | None, str | None]:
    """Reason, RetryInfo in seconds, and `grpc-retry-pushback-ms`."""
    reason, delay = "", None
    for packed in rpc_status.from_call(error).details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(retry):
            delay = retry.retry_delay.ToTimedelta().total_seconds()
    trailers = dict(error.trailing_metadata() or ())
    return reason, delay, trailers.get("grpc-retry-pushback-ms")


@pytest.fixture
def configured(larder, tmp_path):
    """Starts servers with a configuration file."""

    def start(text: str, *arguments: str):
        path = tmp_path / "larder.toml"
        path.write_text(text)
        return larder("--config", str(path), *arguments)

    return start


def dump_code(stub, token):
    """How the first part of a dump is refused, if it is."""
    try:
        next(stub.Dump(cache.DumpRequest(), metadata=token))
    except grpc.RpcError as error:
        return error.code()
    return None


def parts_until(done: threading.Event):
    """The requests of a load that lasts."""
    yield cache.LoadRequest()
    done.wait(PATIENCE_S)


def test_a_stream_without_a_deadline_has_the_servers(configured):
    server = configured(SHORT)
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    ask = server.channel().stream_stream(path)
    done = threading.Event()

    def requests():
        yield b"\x3a\x00"  # list_services
        done.wait(PATIENCE_S)

    began = time.monotonic()
    answers = ask(requests())
    try:
        assert b"larder.cache.v1.CacheService" in next(answers)
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
    finally:
        done.set()
    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert details_of(ended.value)[0] == "NOT_STARTED"
    assert 1.9 < time.monotonic() - began < PATIENCE_S


def test_an_account_has_so_many_streams(configured):
    server = configured(SHORT)
    token = bearer(server.account("team-a"))
    stub = server.cache()
    for number in range(60):
        request = cache.SetRequest(key=b"%d" % number, value=bytes(200_000))
        stub.Set(request, metadata=token, timeout=PATIENCE_S)
    # More than the client's windows take: it goes on only as it is read.
    first = stub.Dump(cache.DumpRequest(), metadata=token)
    next(first)
    with pytest.raises(grpc.RpcError) as second:
        next(stub.Dump(cache.DumpRequest(), metadata=token))
    assert second.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details_of(second.value) == ("CONCURRENCY_LIMITED", 1.0, "1000")
    # Another account is none the worse for it, and nor are other calls of this one.
    other = bearer(server.account("team-b"))
    list(stub.Dump(cache.DumpRequest(), metadata=other))
    stub.Get(cache.GetRequest(key=b"1"), metadata=token, timeout=PATIENCE_S)
    first.cancel()
    until = time.monotonic() + PATIENCE_S
    while (code := dump_code(stub, token)) == grpc.StatusCode.RESOURCE_EXHAUSTED:
        assert time.monotonic() < until
    assert code is None


def begin_load(stub, token, refused: list):
    """A load that lasts, as soon as the server has time for it."""
    while True:
        load = stub.Load(parts_until(threading.Event()), metadata=token)
        try:
            next(load)
        except grpc.RpcError as error:
            refused.append(error)
        else:
            return load


@pytest.mark.parametrize("more", [(), (("dry-run", "1"),)], ids=["plain", "dry"])
def test_overload_is_told_with_the_time_to_stay_away(configured, more):
    short = "threads = 1\n[admission]\nlate_ms = 1\ninterval_ms = 10\ntarget_ms = 1"
    server = configured(short, "--admin", "127.0.0.1:0")
    token = (*bearer(server.account("team-a")), *more)
    stub = server.cache()
    keys = [b"%d" % number for number in range(1000)]
    refused, done = [], threading.Event()

    def press():
        while not done.is_set():
            request = cache.BatchGetRequest(keys=keys)
            calls = [stub.BatchGet.future(request, metadata=token) for _ in range(50)]
            for call in calls:
                if (error := call.exception(PATIENCE_S)) is not None:
                    refused.append(error)
                    done.set()

    pressing = [threading.Thread(target=press) for _ in range(2)]
    timer = threading.Timer(PATIENCE_S, done.set)
    timer.start()
    for thread in pressing:
        thread.start()
    # Whatever it refuses, it says that it is well.
    check = server.channel().unary_unary("/grpc.health.v1.Health/Check")
    while not done.is_set():
        assert check(b"", timeout=PATIENCE_S) == b"\x08\x01"
    for thread in pressing:
        thread.join()
    timer.cancel()
    assert refused, "nothing was refused"
    # Each that was refused with its line in the log has begun and ended, like any other.
    load = begin_load(stub, token, refused)
    page = parse(scrape(server))
    assert page.value("larder_calls_in_flight") == 1
    # All are counted at once, also those without a line, and on connections that stay.
    assert page.value("larder_calls_refused_total", reason="overloaded") == len(refused)
    load.cancel()
    for error in refused:
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        reason, delay, pushback = details_of(error)
        assert reason == "OVERLOADED"
        assert 0.1 <= delay <= 0.275
        assert int(pushback) == round(delay * 1000)


def test_an_account_has_so_many_calls_at_a_time(configured):
    server = configured("[admission]\nmax_calls_per_account = 1")
    token = bearer(server.account("team-a"))
    stub, done = server.cache(), threading.Event()
    load = stub.Load(parts_until(done), metadata=token)
    next(load)
    keys = cache.ListKeysRequest()
    with pytest.raises(grpc.RpcError) as second:
        stub.ListKeys(keys, metadata=token, timeout=PATIENCE_S)
    assert second.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details_of(second.value) == ("CONCURRENCY_LIMITED", 0.1, "100")
    other = bearer(server.account("team-b"))
    stub.ListKeys(keys, metadata=other, timeout=PATIENCE_S)
    done.set()
    list(load)
    stub.ListKeys(keys, metadata=token, timeout=PATIENCE_S)


def test_an_account_has_so_many_calls_a_second(larder):
    server = larder()
    token = bearer(server.account("team-a", max_requests_per_second=2))
    stub, refused = server.cache(), None
    for _ in range(50):
        try:
            stub.Get(cache.GetRequest(key=b"k"), metadata=token, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            refused = error
            break
    assert refused is not None, "nothing was refused"
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    reason, delay, pushback = details_of(refused)
    assert reason == "RATE_LIMITED"
    assert 0 < delay <= 0.5
    assert int(pushback) == pytest.approx(delay * 1000, abs=1)
    # Another account is none the worse for it.
    other = bearer(server.account("team-b"))
    stub.Get(cache.GetRequest(key=b"k"), metadata=other, timeout=PATIENCE_S)
    # Whoever stays away as told is served.
    threading.Event().wait(int(pushback) / 1000)
    stub.Get(cache.GetRequest(key=b"k"), metadata=token, timeout=PATIENCE_S)
