"""larder.cache.v1 from a stock Python client."""

import concurrent.futures
import itertools
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from harness import PATIENCE_S, bearer, cache, entry, refused

NUMBERS = itertools.count()


class Client:
    """Calls in an account of its own."""

    def __init__(self, server, **account: object):
        self.stub = server.cache()
        self.account = f"account-{next(NUMBERS)}"
        self.secret = server.account(self.account, **account)
        self.metadata = bearer(self.secret)

    def __getattr__(self, method: str):
        """`client.get(key=…)` calls Get with a GetRequest of these fields."""
        name = method.title().replace("_", "")

        def call(*, more: tuple = (), **fields: object):
            request = getattr(cache, f"{name}Request")(**fields)
            metadata = self.metadata + more
            return getattr(self.stub, name)(request, metadata=metadata, timeout=PATIENCE_S)

        return call

    def value(self, key: bytes) -> bytes | None:
        """The value under a key, if there is one."""
        reply = self.get(key=key)
        return reply.hit.value if reply.HasField("hit") else None


@pytest.fixture
def client(server) -> Client:
    """A client of an empty account."""
    return Client(server)


def test_set_and_get(client):
    reply = client.set(key=b"k", value=b"v", flags=7)
    written = reply.applied.entry
    assert (written.key, written.value, written.size_bytes) == (b"k", b"", 1 + 1 + 64)
    hit = client.get(key=b"k").hit
    assert (hit.value, hit.flags, hit.version) == (b"v", 7, written.version)
    assert not hit.HasField("expire_time")
    assert client.get(key=b"k", omit_value=True).hit.value == b""
    assert client.get(key=b"absent").HasField("miss")


def test_keys_and_values_are_bytes(client):
    for key in (b"\x00", b"\xff\xfe", "schlüssel".encode(), b"k" * 1024):
        client.set(key=key, value=key * 2)
        assert client.value(key) == key * 2


def test_the_largest_value_fits(client):
    value = bytes(3 << 20)
    client.set(key=b"k", value=value)
    assert client.value(b"k") == value


def test_namespaces_are_apart_and_empty_means_default(client):
    for namespace in ("", "a", "b-1_2.c"):
        client.set(namespace=namespace, key=b"k", value=namespace.encode())
    assert client.get(namespace="default", key=b"k").hit.value == b""
    assert client.get(namespace="a", key=b"k").hit.value == b"a"
    assert client.get(namespace="b-1_2.c", key=b"k").hit.value == b"b-1_2.c"
    assert client.get(namespace="c", key=b"k").HasField("miss")


def test_entries_end_with_their_time_to_live(client):
    client.set(key=b"brief", value=b"v", ttl=Duration(nanos=1_000_000))
    client.set(key=b"hour", value=b"v", ttl=Duration(seconds=3600))
    at = Timestamp(seconds=int(time.time()) + 7200)
    client.set(key=b"later", value=b"v", expire_time=at)
    hour = client.get(key=b"hour").hit.expire_time.seconds - time.time()
    assert 3500 < hour <= 3601
    assert abs(client.get(key=b"later").hit.expire_time.seconds - at.seconds) <= 1
    give_up = time.monotonic() + PATIENCE_S
    while client.value(b"brief") is not None:
        assert time.monotonic() < give_up
    assert client.get_usage().quota_usage.key_count == 2


def test_touch_changes_when_an_entry_ends(client):
    client.set(key=b"k", value=b"v", ttl=Duration(seconds=3600))
    version = client.get(key=b"k").hit.version
    assert client.touch(key=b"k", never=True).HasField("applied")
    assert not client.get(key=b"k").hit.HasField("expire_time")
    hit = client.get_and_touch(key=b"k", ttl=Duration(seconds=60)).hit
    assert hit.value == b"v"
    assert hit.version == version
    assert 0 < hit.expire_time.seconds - time.time() <= 61
    reply = client.set(key=b"k", value=b"w", keep_expire_time=True)
    assert reply.applied.entry.HasField("expire_time")
    assert client.touch(key=b"absent", never=True).HasField("miss")
    assert client.get_and_touch(key=b"absent", never=True).HasField("miss")


def test_writes_under_a_condition(client):
    absent, present = cache.Precondition(if_absent=True), cache.Precondition(if_present=True)

    def applied(value: bytes, precondition: cache.Precondition) -> bool:
        return client.set(key=b"k", value=value, precondition=precondition).HasField("applied")

    assert not applied(b"0", present)
    assert applied(b"1", absent)
    assert not applied(b"2", absent)
    assert applied(b"3", present)
    version = client.get(key=b"k").hit.version
    assert applied(b"4", cache.Precondition(if_version=version))
    assert not applied(b"5", cache.Precondition(if_version=version))
    assert client.value(b"k") == b"4"

    reply = client.set(key=b"k", value=b"6", precondition=absent)
    assert reply.not_applied.current.version == client.get(key=b"k").hit.version
    reply = client.delete(key=b"k", precondition=cache.Precondition(if_version=version))
    assert reply.HasField("not_applied")
    assert client.delete(key=b"k", precondition=present).HasField("applied")
    assert not client.delete(key=b"k").not_applied.HasField("current")


def test_increment(client):
    assert client.increment(key=b"n", delta=5, initial_value=10).value == 15
    assert client.increment(key=b"n", delta=-20).value == -5
    bounded = client.increment(key=b"n", delta=100, upper_bound=0)
    assert (bounded.value, bounded.applied_delta) == (0, 5)
    bounded = client.increment(key=b"n", delta=-100, lower_bound=-7)
    assert (bounded.value, bounded.applied_delta) == (-7, -7)
    assert client.value(b"n") == b"-7"
    client.increment(key=b"brief", delta=1, initial_ttl=Duration(seconds=60))
    assert client.get(key=b"brief").hit.HasField("expire_time")
    client.set(key=b"word", value=b"five")
    with refused("FAILED_PRECONDITION", "NOT_A_NUMBER"):
        client.increment(key=b"word", delta=1)
    client.set(key=b"most", value=b"9223372036854775807")
    with refused("OUT_OF_RANGE", "OVERFLOW"):
        client.increment(key=b"most", delta=1)


def test_increments_from_many_callers_all_count(client):
    def add(_: int) -> None:
        client.increment(key=b"n", delta=1)

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        list(pool.map(add, range(2000)))
    assert client.value(b"n") == b"2000"


def reason_of(status) -> tuple[str, str]:
    """Code and reason of an error that stands inside a reply."""
    info = error_details_pb2.ErrorInfo()
    assert any(packed.Unpack(info) for packed in status.details)
    return code_pb2.Code.Name(status.code), info.reason


BAD_ITEMS = [
    (cache.SetRequest(), "INVALID_ARGUMENT", "KEY_EMPTY"),
    (cache.SetRequest(key=b"k" * 1025), "INVALID_ARGUMENT", "KEY_TOO_LONG"),
    (cache.SetRequest(key=b"k", namespace="A"), "INVALID_ARGUMENT", "NAMESPACE_INVALID"),
    (cache.SetRequest(key=b"k", ttl=Duration()), "INVALID_ARGUMENT", "TTL_OUT_OF_RANGE"),
    (cache.SetRequest(key=b"k", value=bytes(3145729)), "INVALID_ARGUMENT", "VALUE_TOO_LARGE"),
    (cache.SetRequest(key=b"k", validate_only=True), "INVALID_ARGUMENT", "FIELD_INVALID"),
    (cache.SetRequest(key=b"k", request_id="id"), "INVALID_ARGUMENT", "FIELD_INVALID"),
]


def test_a_bad_item_of_a_batch_fails_alone(client):
    requests = [cache.SetRequest(key=b"before"), *(row[0] for row in BAD_ITEMS)]
    requests.append(cache.SetRequest(key=b"after"))
    first, *bad, last = client.batch_set(requests=requests).results
    assert first.response.HasField("applied")
    assert last.response.HasField("applied")
    assert [reason_of(result.error) for result in bad] == [row[1:] for row in BAD_ITEMS]

    results = client.batch_delete(keys=[b"before", b"", b"k" * 1025, b"after"]).results
    assert [result.WhichOneof("result") for result in results] == [
        "deleted",
        "error",
        "error",
        "deleted",
    ]
    assert reason_of(results[1].error) == ("INVALID_ARGUMENT", "KEY_EMPTY")
    assert reason_of(results[2].error) == ("INVALID_ARGUMENT", "KEY_TOO_LONG")
    assert client.get_usage().quota_usage.key_count == 0


def test_batches_have_an_outcome_for_each_item(client):
    requests = [
        cache.SetRequest(key=b"a", value=b"1"),
        cache.SetRequest(namespace="other", key=b"c", value=b"3"),
        cache.SetRequest(key=b"a", precondition=cache.Precondition(if_absent=True)),
    ]
    results = client.batch_set(requests=requests).results
    assert [r.WhichOneof("result") for r in results] == ["response"] * 3
    assert results[2].response.HasField("not_applied")

    results = client.batch_get(keys=[b"absent", b"a", b"c"]).results
    assert [r.WhichOneof("outcome") for r in results] == ["miss", "hit", "miss"]
    assert results[1].hit.value == b"1"
    results = client.batch_delete(keys=[b"a", b"absent"]).results
    assert [r.deleted for r in results] == [True, False]


def test_a_batch_that_would_grow_too_large_defers_the_rest(client):
    for key in (b"a", b"b", b"c"):
        client.set(key=key, value=bytes(2 << 20))
    outcomes = [r.WhichOneof("outcome") for r in client.batch_get(keys=[b"a", b"b", b"c"]).results]
    assert outcomes[0] == "hit"
    assert outcomes[-1] == "deferred"


def test_list_goes_through_all_keys_in_order(client):
    keys = [f"key-{number:03}".encode() for number in range(250)]
    for start in range(0, len(keys), 100):
        part = [cache.SetRequest(key=key, value=b"v") for key in keys[start : start + 100]]
        client.batch_set(requests=part)
    client.set(key=b"other")
    listed, token, pages = [], "", 0
    while token or not pages:
        reply = client.list_keys(prefix=b"key-", page_size=100, page_token=token)
        listed += [listed_entry.key for listed_entry in reply.entries]
        assert all(listed_entry.value == b"" for listed_entry in reply.entries)
        token, pages = reply.next_page_token, pages + 1
    assert listed == keys
    assert pages == 3


def test_delete_by_prefix(client):
    client.batch_set(requests=[cache.SetRequest(key=k) for k in (b"a1", b"a2", b"b1")])
    assert client.delete_prefix(prefix=b"a", validate_only=True).deleted_count == 2
    assert client.value(b"a1") == b""
    assert client.delete_prefix(prefix=b"a").deleted_count == 2
    assert client.delete_prefix(all=True).deleted_count == 1
    assert client.get_usage().quota_usage.key_count == 0


def test_dump_and_load(client, server):
    for number in range(2500):
        client.set(key=b"%d" % number, value=bytes(200), flags=number, ttl=Duration(seconds=3600))
    parts = list(client.dump())
    assert len(parts) > 1
    entries = [dumped for part in parts for dumped in part.entries]
    assert len({dumped.key for dumped in entries}) == len(entries) == 2500

    # Broken after its first part, and resumed.
    first = parts[0]
    resumed = client.dump(resume_token=first.resume_token)
    keys = {dumped.key for part in (first, *resumed) for dumped in part.entries}
    assert keys == {dumped.key for dumped in entries}

    other = Client(server)
    chunks = [cache.LoadRequest(entries=entries[at : at + 500]) for at in range(0, 2500, 500)]
    *_, last = other.stub.Load(iter(chunks), metadata=other.metadata, timeout=PATIENCE_S)
    assert (last.stored_count, last.refused_count) == (2500, 0)
    loaded = other.get(key=b"1234").hit
    assert (loaded.value, loaded.flags) == (bytes(200), 1234)
    assert loaded.HasField("expire_time")


def test_load_counts_what_it_does_not_store(server):
    client = Client(server, max_keys=2)
    past = Timestamp(seconds=1)
    entries = [
        entry.Entry(key=b"a"),
        entry.Entry(key=b"gone", expire_time=past),
        entry.Entry(key=b"b"),
        entry.Entry(key=b"c"),
        entry.Entry(),
    ]
    requests = iter([cache.LoadRequest(entries=entries)])
    [reply] = client.stub.Load(requests, metadata=client.metadata, timeout=PATIENCE_S)
    assert (reply.stored_count, reply.expired_count, reply.refused_count) == (2, 1, 2)
    assert reason_of(reply.first_refusal) == ("RESOURCE_EXHAUSTED", "KEY_QUOTA_EXCEEDED")


def load_parts(client, *parts):
    return list(client.stub.Load(iter(parts), metadata=client.metadata, timeout=PATIENCE_S))


def test_a_load_into_a_bad_namespace_stores_nothing(client):
    with refused("INVALID_ARGUMENT", "NAMESPACE_INVALID"):
        load_parts(client, cache.LoadRequest(namespace="A", entries=[entry.Entry(key=b"a")]))


def test_a_load_is_of_one_namespace_and_one_mind(client):
    first = cache.LoadRequest(namespace="one", entries=[entry.Entry(key=b"a")])
    for later in (cache.LoadRequest(namespace="two"), cache.LoadRequest(validate_only=True)):
        with refused("INVALID_ARGUMENT", "FIELD_INVALID"):
            load_parts(client, first, later)
    assert len(load_parts(client, first, cache.LoadRequest(namespace="one"))) == 2


@pytest.mark.parametrize("asked", ["field", "metadata"])
def test_every_mutation_can_be_validated_only(client, asked):
    client.set(key=b"n", value=b"1")
    before = sorted((e.key, e.value, e.version) for part in client.dump() for e in part.entries)
    options = {"validate_only": True} if asked == "field" else {"more": (("dry-run", "1"),)}
    replies = [
        client.set(key=b"new", value=b"v", **options),
        client.delete(key=b"n", **options),
        client.touch(key=b"n", ttl=Duration(seconds=1), **options),
        client.get_and_touch(key=b"n", ttl=Duration(seconds=1), **options),
        client.increment(key=b"n", delta=1, **options),
        client.batch_set(requests=[cache.SetRequest(key=b"new")], **options),
        client.batch_delete(keys=[b"n"], **options),
        client.delete_prefix(all=True, **options),
    ]
    assert all(reply.validated_only for reply in replies)
    assert replies[0].HasField("applied")
    assert replies[4].value == 2
    assert replies[6].results[0].deleted
    after = sorted((e.key, e.value, e.version) for part in client.dump() for e in part.entries)
    assert after == before
    assert not client.get(key=b"n").hit.HasField("expire_time")
    assert not client.set(key=b"n", value=b"1").validated_only


def test_usage(client):
    client.set(key=b"k", value=b"v" * 35)
    client.get(key=b"k")
    client.get(key=b"absent")
    client.get(key=b"absent")
    usage = client.get_usage()
    assert (usage.quota_usage.key_count, usage.quota_usage.bytes) == (1, 100)
    assert (usage.quota_usage.max_keys, usage.quota_usage.max_bytes) == (1_000_000, 1 << 30)
    assert (usage.hit_count, usage.miss_count) == (1, 2)


def test_server_info_reports_every_limit(client):
    info = client.get_server_info()
    assert info.version
    expected = {
        "max_key_bytes": 1024,
        "max_value_bytes": 3 << 20,
        "max_batch_keys": 1000,
        "max_list_page": 1000,
    }
    assert expected.items() <= dict(info.limits).items()


def test_quota_is_resource_exhausted_here(server):
    client = Client(server, max_keys=1)
    client.set(key=b"a")
    with refused("RESOURCE_EXHAUSTED", "KEY_QUOTA_EXCEEDED"):
        client.set(key=b"b")
    assert client.set(key=b"a", value=b"again").HasField("applied")


def test_an_account_may_evict_instead(server):
    client = Client(server, max_keys=10, at_limit=2)
    for number in range(100):
        client.set(key=b"%d" % number)
    usage = client.get_usage()
    assert usage.quota_usage.key_count == 10
    assert usage.evicted_count == 90


def test_an_account_may_not_ask_more_often_than_its_rate(server):
    client = Client(server, max_requests_per_second=1)

    def ask() -> None:
        for _ in range(50):
            client.get(key=b"k")

    with refused("RESOURCE_EXHAUSTED", "RATE_LIMITED") as refusal:
        ask()
    trailers = dict(refusal.error.trailing_metadata())
    assert 0 < int(trailers["grpc-retry-pushback-ms"]) <= 1001


def test_many_writers_of_new_keys_stop_exactly_at_the_limit(server):
    limit, writers, each = 10_000, 64, 200
    client = Client(server, max_keys=limit)
    channels = [server.cache() for _ in range(4)]

    def write(writer: int) -> int:
        stub = channels[writer % len(channels)]
        stored = 0
        for number in range(each):
            request = cache.SetRequest(key=b"%d-%d" % (writer, number))
            try:
                stub.Set(request, metadata=client.metadata, timeout=PATIENCE_S)
                stored += 1
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error  # noqa: PT017
        return stored

    with concurrent.futures.ThreadPoolExecutor(writers) as pool:
        stored = sum(pool.map(write, range(writers)))
    assert stored == limit
    assert client.get_usage().quota_usage.key_count == limit
    assert sum(len(part.entries) for part in client.dump()) == limit


def test_health(server):
    health = health_pb2_grpc.HealthStub(server.channel())
    for service in ("", "rpc.Cache", "larder.cache.v1.CacheService"):
        reply = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as raised:
        health.Check(health_pb2.HealthCheckRequest(service="unknown"))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_shows_both_contracts(server):
    database = ProtoReflectionDescriptorDatabase(server.channel())
    assert {
        "rpc.Cache",
        "rpc.Accounts",
        "larder.cache.v1.CacheService",
        "larder.accounts.v1.AccountService",
    } <= set(database.get_services())
    file = database.FindFileContainingSymbol("larder.cache.v1.CacheService")
    [service] = [s for s in file.service if s.name == "CacheService"]
    ours = {method.name for method in cache.DESCRIPTOR.services_by_name["CacheService"].methods}
    assert {method.name for method in service.method} == ours
