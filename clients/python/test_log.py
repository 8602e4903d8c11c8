"""The access log must never hold up a call, whatever becomes of its reader."""

import contextlib
import json
import subprocess
import time
from pathlib import Path

import grpc
import pytest

from harness import (
    LARDER,
    PATIENCE_S,
    accounts,
    accounts_grpc,
    bearer,
    cache,
    environment,
    talk,
    talk_grpc,
)
from observed import parse, scrape

# More lines than a pipe holds (64 KiB), at about 200 bytes each.
CALLS = 2000

READERS = ["never reads", "has gone"]


@contextlib.contextmanager
def unread_server(data_dir: Path, reader: str):
    """A server whose stderr is a pipe that nobody reads; it has to end well. Its channel."""
    server = subprocess.Popen(
        [LARDER, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        address = server.stdout.readline().removeprefix("listening on ").strip()
        if reader == "has gone":
            server.stderr.close()
        with grpc.insecure_channel(address) as channel:
            yield channel
        server.terminate()
        assert server.wait(PATIENCE_S) == 0
    finally:
        server.kill()
        server.wait(PATIENCE_S)


@pytest.mark.parametrize("reader", READERS)
def test_calls_go_on_when_the_log_is_not_read(tmp_path, reader):
    with unread_server(tmp_path, reader) as channel:
        stub = talk_grpc.CacheStub(channel)
        for number in range(CALLS):
            stub.Store(talk.StoreReq(key=f"k{number}", val=b"v"), timeout=PATIENCE_S)


@pytest.mark.parametrize("reader", READERS)
def test_calls_go_on_when_the_audit_log_is_not_read(tmp_path, reader):
    with unread_server(tmp_path, reader) as channel:
        stub = accounts_grpc.AccountServiceStub(channel)
        token = bearer((tmp_path / "admin-token").read_text().strip())
        # Lines of an administrator have no bound; a dry run needs no disk.
        for number in range(CALLS):
            name = f"a-name-that-makes-the-line-long-{number}"
            request = accounts.CreateAccountRequest(account_id=name, validate_only=True)
            stub.CreateAccount(request, metadata=token, timeout=PATIENCE_S)


@pytest.mark.parametrize(
    "compression",
    # A compressed request takes the general lane.
    [grpc.Compression.NoCompression, grpc.Compression.Gzip],
    ids=["typed", "general"],
)
def test_a_flood_of_refusals_leaves_few_lines_and_is_told_in_one(larder, compression):
    server = larder("--admin", "127.0.0.1:0", "--log-format", "json")
    token = bearer(server.account("team-a", max_requests_per_second=1))
    stub = server.cache()
    began = time.monotonic()
    gets = [
        stub.Get.future(cache.GetRequest(key=b"k"), metadata=token, compression=compression)
        for _ in range(CALLS)
    ]
    codes = [error.code() for get in gets if (error := get.exception(PATIENCE_S)) is not None]
    assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    refused = len(codes)
    assert CALLS / 2 < refused < CALLS
    # Errors that are rare have their lines all the same.
    for _ in range(5):
        with pytest.raises(grpc.RpcError):
            stub.Get(cache.GetRequest(key=b"k"), metadata=bearer("wrong"), timeout=PATIENCE_S)
    told, until = 0, time.monotonic() + PATIENCE_S
    while told < refused:
        assert time.monotonic() < until, f"{told} of {refused} were told"
        whole, _, _ = server.stderr().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines()]
        together = [line for line in lines if line["message"] == "calls without a line"]
        calls = [line for line in lines if line["message"] == "call"]
        reasons = [line["reason"] for line in calls]
        told = reasons.count("RATE_LIMITED") + sum(line["suppressed"] for line in together)
    assert told == refused
    assert 1 <= reasons.count("RATE_LIMITED") <= 10 * (time.monotonic() - began + 1)
    assert reasons.count("TOKEN_INVALID") == 5
    assert {line["reason"] for line in together} == {"RATE_LIMITED"}
    page = parse(scrape(server))
    assert page.value("larder_calls_refused_total", reason="rate_limited") == refused
