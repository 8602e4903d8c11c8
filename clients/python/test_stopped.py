"""Work that stops with its caller, or with its time, as the server counts it."""

import threading
import time

import pytest

from harness import PATIENCE_S, bearer, cache, entry, refused
from observed import Page, parse, scrape

DUMP = "larder.cache.v1.CacheService/Dump"
SENT = "grpc_server_call_sent_total_compressed_message_size_bytes_sum"
# Far more than windows, which grpcio widens as it likes, and sockets on the way take.
VALUES, VALUE_BYTES = 120, 900_000
# Calls have a second.
SHORT = "[deadlines]\ndefault_seconds = 1\nmax_seconds = 1\n"


@pytest.fixture
def filled(larder, tmp_path):
    """Starts a server whose account has much to dump; returns a stub and metadata, too."""

    def start(config: str = ""):
        path = tmp_path / "larder.toml"
        path.write_text(config)
        server = larder("--admin", "127.0.0.1:0", "--config", str(path))
        token = bearer(server.account("team-a"))
        stub = server.cache()
        for number in range(VALUES):
            request = cache.SetRequest(key=b"%d" % number, value=bytes(VALUE_BYTES))
            stub.Set(request, metadata=token, timeout=PATIENCE_S)
        return server, stub, token

    return start


def ended(server, reason: str) -> Page:
    """The page once a call has ended for a reason, and none is in flight."""
    until = time.monotonic() + PATIENCE_S
    while True:
        page = parse(scrape(server))
        counted = page.value("larder_calls_refused_total", reason=reason)
        if counted == 1 and page.value("larder_calls_in_flight") == 0:
            return page
        assert time.monotonic() < until, f"{reason}: {counted}"


def test_a_dump_that_is_cancelled_is_read_no_further(filled):
    server, stub, token = filled()
    dump = stub.Dump(cache.DumpRequest(), metadata=token)
    next(dump)
    dump.cancel()
    page = ended(server, "cancelled")
    sent = page.value(SENT, grpc_method=DUMP, grpc_status="CANCELLED")
    assert VALUE_BYTES < sent < VALUES * VALUE_BYTES / 2


def test_a_dump_whose_time_is_over_is_read_no_further(filled):
    server, stub, token = filled(SHORT)
    dump = stub.Dump(cache.DumpRequest(), metadata=token)
    next(dump)
    # Its caller has more to do than to read.
    page = ended(server, "deadline")
    sent = page.value(SENT, grpc_method=DUMP, grpc_status="DEADLINE_EXCEEDED")
    assert VALUE_BYTES < sent < VALUES * VALUE_BYTES / 2
    with refused("DEADLINE_EXCEEDED", "NOT_STARTED"):
        list(dump)


def begin_load(stub, token, done: threading.Event):
    """A load whose caller stops to send after its first part, which was stored."""

    def parts():
        yield cache.LoadRequest(entries=[entry.Entry(key=b"first", value=b"v")])
        done.wait(PATIENCE_S)

    answers = stub.Load(parts(), metadata=token)
    assert next(answers).stored_count == 1
    return answers


def test_a_load_that_is_cancelled_keeps_nothing(filled):
    server, stub, token = filled()
    done = threading.Event()
    begin_load(stub, token, done).cancel()
    done.set()
    ended(server, "cancelled")
    assert stub.Get(cache.GetRequest(key=b"first"), metadata=token, timeout=PATIENCE_S).hit.value


def test_a_load_whose_time_is_over_keeps_nothing(filled):
    server, stub, token = filled(SHORT)
    done = threading.Event()
    answers = begin_load(stub, token, done)
    with refused("DEADLINE_EXCEEDED", "MAYBE_APPLIED"):
        next(answers)
    done.set()
    ended(server, "deadline")
