"""larder from Python, with grpcio: each function is one thing that a client meets.

The servers are named by the environment; `clients/README.md` says how.
"""

import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import stubs

stubs.generate()

import rpc_pb2 as talk  # noqa: E402
import rpc_pb2_grpc as talk_grpc  # noqa: E402
from larder.cache.v1 import cache_service_pb2 as cache  # noqa: E402
from larder.cache.v1 import cache_service_pb2_grpc as cache_grpc  # noqa: E402

TOKEN = os.environ["TOUR_TOKEN"]


def connect(target: str, *options: tuple[str, object]) -> grpc.Channel:
    """Opens a channel that retries as the service configuration says."""
    service_config = Path(os.environ["TOUR_SERVICE_CONFIG"]).read_text()
    return grpc.insecure_channel(
        target,
        options=[
            ("grpc.service_config", service_config),
            ("grpc.enable_http_proxy", 0),
            *options,
        ],
    )


def talks_sequence(stub: talk_grpc.CacheStub) -> None:
    """Stores a value and reads it back, as an account's token."""
    credential = [("authorization", f"Bearer {TOKEN}")]
    stub.Store(talk.StoreReq(key="gopher", val=b"con"), metadata=credential, timeout=10)
    reply = stub.Get(talk.GetReq(key="gopher"), metadata=credential, timeout=10)
    assert reply.val == b"con"


def quota(stub: talk_grpc.CacheStub) -> None:
    """Stores more keys than the account may have, and reads why not."""
    stub.Store(talk.StoreReq(key="second", val=b"v", account_token=TOKEN), timeout=10)
    error = error_of(
        lambda: stub.Store(talk.StoreReq(key="third", val=b"v", account_token=TOKEN), timeout=10)
    )
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    info, failure = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure()
    for detail in rpc_status.from_call(error).details:
        # Each is unpacked by the message that it is.
        detail.Unpack(info)
        detail.Unpack(failure)
    assert (info.domain, info.reason) == ("larder", "KEY_QUOTA_EXCEEDED")
    [violation] = failure.violations
    assert "tour" in violation.subject


def deadline() -> None:
    """Gives up on a slow server, which then leaves the call undone."""
    with connect(os.environ["TOUR_SLOW_SERVER"]) as channel:
        stub = talk_grpc.CacheStub(channel)
        request = talk.StoreReq(key="late", val=b"v", account_token=TOKEN)
        assert code_of(lambda: stub.Store(request, timeout=1)) == "DEADLINE_EXCEEDED"
        # Nothing later: it was not stored behind the caller's back.
        request = talk.GetReq(key="late", account_token=TOKEN)
        assert code_of(lambda: stub.Get(request, timeout=10)) == "NOT_FOUND"


def dry_run(stub: talk_grpc.CacheStub) -> None:
    """Has a store checked but not carried out."""
    _, call = stub.Store.with_call(
        talk.StoreReq(key="gopher", val=b"phercon", account_token=TOKEN),
        metadata=[("dry-run", "1")],
        timeout=10,
    )
    echoed = itertools.chain(call.initial_metadata(), call.trailing_metadata())
    assert ("dry-run", "1") in echoed
    reply = stub.Get(talk.GetReq(key="gopher", account_token=TOKEN), timeout=10)
    assert reply.val == b"con"


def dump(stub: talk_grpc.CacheStub) -> None:
    """Streams every entry."""
    entries = {item.key: item.val for item in stub.Dump(talk.DumpReq(), timeout=30)}
    assert len(entries) == int(os.environ["TOUR_ENTRIES"])
    assert all(value == b"value of " + key.encode() for key, value in entries.items())


def retry(faulty: cache_grpc.CacheServiceStub) -> None:
    """Reads from a server that fails twice, and does not notice."""
    reply = faulty.Get(cache.GetRequest(key=b"unavailable-twice"), timeout=10)
    assert reply.hit.value == b"value of unavailable-twice"


def once(faulty: cache_grpc.CacheServiceStub) -> None:
    """Is told at once what another attempt would not change, or might do twice."""

    def get(key: bytes) -> str:
        return code_of(lambda: faulty.Get(cache.GetRequest(key=key), timeout=10))

    assert get(b"not-found") == "NOT_FOUND"
    assert get(b"failed-precondition") == "FAILED_PRECONDITION"
    increment = cache.IncrementRequest(key=b"unavailable-twice", delta=1)
    assert code_of(lambda: faulty.Increment(increment, timeout=10)) == "UNAVAILABLE"


def failover() -> None:
    """Goes on with the second server when the first one dies."""
    # A list of addresses is no name of a server: it needs one.
    authority = ("grpc.default_authority", "localhost")
    with connect("ipv4:" + os.environ["TOUR_PAIR"], authority) as channel:
        stub = cache_grpc.CacheServiceStub(channel)
        stub.Set(cache.SetRequest(key=b"before", value=b"v"), timeout=10)
        report("failover", "waiting")
        sys.stdin.readline()
        stub.Set(cache.SetRequest(key=b"after", value=b"v"), timeout=10)


def error_of(call: Callable[[], object]) -> grpc.RpcError:
    """The error that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call went well")


def code_of(call: Callable[[], object]) -> str:
    """The name of the status that a call ends with."""
    return error_of(call).code().name


def report(behaviour: str, outcome: str, why: str = "") -> None:
    """Tells it to whoever started this."""
    print(json.dumps({"behaviour": behaviour, "outcome": outcome, "why": why}), flush=True)


def main() -> None:
    """Makes the whole tour."""
    with (
        connect(os.environ["TOUR_SERVER"]) as channel,
        connect(os.environ["TOUR_FAULTY_SERVER"]) as faulty_channel,
    ):
        stub = talk_grpc.CacheStub(channel)
        faulty = cache_grpc.CacheServiceStub(faulty_channel)
        tour = {
            "talk": lambda: talks_sequence(stub),
            "quota": lambda: quota(stub),
            "deadline": deadline,
            "dry-run": lambda: dry_run(stub),
            "dump": lambda: dump(stub),
            "retry": lambda: retry(faulty),
            "once": lambda: once(faulty),
            "failover": failover,
        }
        for behaviour, run in tour.items():
            try:
                run()
            except (AssertionError, grpc.RpcError) as error:
                report(behaviour, "failed", repr(error))
            else:
                report(behaviour, "passed")


if __name__ == "__main__":
    main()
