"""What Redis' and memcached's commands become: the code of `docs/migrating.md`.

Each function takes a stub of `larder.cache.v1` whose credential is set on its channel.
"""

import json
import uuid
from collections.abc import Callable, Iterator

import grpc
from google.protobuf import duration_pb2

import stubs

stubs.generate()

from larder.cache.v1 import cache_service_pb2 as cache  # noqa: E402
from larder.cache.v1 import cache_service_pb2_grpc as cache_grpc  # noqa: E402

Stub = cache_grpc.CacheServiceStub

# Of each call, as socket_timeout of a client of Redis.
TIMEOUT_S = 1


def seconds(count: float) -> duration_pb2.Duration:
    """A time to live."""
    return duration_pb2.Duration(nanos=round(count % 1 * 1e9), seconds=int(count))


def get(stub: Stub, key: bytes) -> bytes | None:
    """GET key."""
    reply = stub.Get(cache.GetRequest(key=key), timeout=TIMEOUT_S)
    return reply.hit.value if reply.HasField("hit") else None


def mget(stub: Stub, keys: list[bytes]) -> list[bytes | None]:
    """MGET key …, in as many calls as the values take."""
    found, asked = {}, list(keys)
    while asked:
        reply = stub.BatchGet(cache.BatchGetRequest(keys=asked), timeout=TIMEOUT_S)
        outcomes = list(zip(asked, reply.results, strict=True))
        found.update({key: result.hit.value for key, result in outcomes if result.HasField("hit")})
        asked = [key for key, result in outcomes if result.HasField("deferred")]
    return [found.get(key) for key in keys]


def setex(stub: Stub, key: bytes, ttl_s: float, value: bytes) -> None:
    """SET key value EX ttl; without a `ttl` it stays until it is evicted."""
    request = cache.SetRequest(key=key, value=value, ttl=seconds(ttl_s))
    stub.Set(request, timeout=TIMEOUT_S)


def set_nx(stub: Stub, key: bytes, value: bytes, ttl_s: float) -> bool:
    """SET key value NX EX ttl, and memcached's `add`: only if there is none."""
    request = cache.SetRequest(
        key=key,
        value=value,
        ttl=seconds(ttl_s),
        precondition=cache.Precondition(if_absent=True),
        # Asked again after a lost answer, it says what it said the first time.
        request_id=str(uuid.uuid4()),
    )
    return stub.Set(request, timeout=TIMEOUT_S).HasField("applied")


def getdel(stub: Stub, key: bytes) -> bytes | None:
    """GETDEL key: whoever deletes the version that was read has the value alone."""
    while True:
        read = stub.Get(cache.GetRequest(key=key), timeout=TIMEOUT_S)
        if not read.HasField("hit"):
            return None
        request = cache.DeleteRequest(
            key=key,
            precondition=cache.Precondition(if_version=read.hit.version),
            request_id=str(uuid.uuid4()),
        )
        if stub.Delete(request, timeout=TIMEOUT_S).HasField("applied"):
            return read.hit.value


def ttl(stub: Stub, key: bytes, now_s: float) -> float | None:
    """TTL key, in seconds; a key that does not expire is `inf`."""
    reply = stub.Get(cache.GetRequest(key=key, no_touch=True, omit_value=True), timeout=TIMEOUT_S)
    if not reply.HasField("hit"):
        return None
    if not reply.hit.HasField("expire_time"):
        return float("inf")
    return reply.hit.expire_time.ToMilliseconds() / 1000 - now_s


def incr(stub: Stub, key: bytes, delta: int = 1) -> int:
    """INCRBY key delta; a key that is not there begins at 0."""
    request = cache.IncrementRequest(key=key, delta=delta, request_id=str(uuid.uuid4()))
    return stub.Increment(request, timeout=TIMEOUT_S).value


def allow(stub: Stub, key: bytes, limit: int, window_s: float) -> bool:
    """INCR and EXPIRE for a rate: true for the first `limit` calls of each window."""
    request = cache.IncrementRequest(
        key=key,
        delta=1,
        # Of the first call: the window begins with it.
        initial_ttl=seconds(window_s),
        upper_bound=limit,
        request_id=str(uuid.uuid4()),
    )
    return stub.Increment(request, timeout=TIMEOUT_S).applied_delta == 1


def update(stub: Stub, key: bytes, change: Callable[[dict], dict]) -> dict:
    """HSET, LPUSH, SADD, or WATCH and MULTI: a whole value that is changed by its version."""
    while True:
        read = stub.Get(cache.GetRequest(key=key), timeout=TIMEOUT_S)
        is_there = read.HasField("hit")
        after = change(json.loads(read.hit.value) if is_there else {})
        request = cache.SetRequest(
            key=key, value=json.dumps(after).encode(), request_id=str(uuid.uuid4())
        )
        if is_there:
            request.keep_expire_time = True
            request.precondition.if_version = read.hit.version
        else:
            request.precondition.if_absent = True
        if stub.Set(request, timeout=TIMEOUT_S).HasField("applied"):
            return after


def scan(stub: Stub, prefix: bytes) -> Iterator[bytes]:
    """SCAN with MATCH prefix*: every key once, in order."""
    request = cache.ListKeysRequest(prefix=prefix, page_size=1000)
    while True:
        page = stub.ListKeys(request, timeout=TIMEOUT_S)
        yield from (entry.key for entry in page.entries)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def flush(stub: Stub) -> int:
    """FLUSHDB, and memcached's `flush_all`: all of a namespace, which it counts."""
    request = cache.DeletePrefixRequest(all=True)
    return stub.DeletePrefix(request, timeout=TIMEOUT_S).deleted_count


def decr_memcached(stub: Stub, key: bytes, delta: int) -> int:
    """As `decr` of memcached, it ends at 0; unlike there, a missing key begins at 0."""
    request = cache.IncrementRequest(
        key=key, delta=-delta, lower_bound=0, request_id=str(uuid.uuid4())
    )
    return stub.Increment(request, timeout=TIMEOUT_S).value


def read_through(stub: Stub, key: bytes, old: Callable[[bytes], bytes | None]) -> bytes | None:
    """Fills larder from the cache before it: what is asked for moves."""
    value = get(stub, key)
    if value is None and (value := old(key)) is not None:
        # Not over what another writer has stored meanwhile.
        set_nx(stub, key, value, ttl_s=3600)
    return value


class Credential(grpc.UnaryUnaryClientInterceptor):
    """AUTH, said once: shows the token with each call."""

    def __init__(self, token: str):
        self._metadata = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation, details, request):
        """Adds it to the metadata."""
        metadata = [*(details.metadata or ()), self._metadata]
        return continuation(details._replace(metadata=metadata), request)


def connect(target: str, token: str, service_config: str) -> Stub:
    """A client that is made once and shared by all threads."""
    channel = grpc.insecure_channel(target, [("grpc.service_config", service_config)])
    return cache_grpc.CacheServiceStub(grpc.intercept_channel(channel, Credential(token)))
