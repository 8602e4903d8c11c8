"""The page at /metrics, as Prometheus reads it."""

import grpc
import pytest

from harness import PATIENCE_S, bearer, cache, talk
from observed import parse, scrape

GET = "larder.cache.v1.CacheService/Get"
SIZES = "grpc_server_call_{}_total_compressed_message_size_bytes"


def test_calls_are_counted_by_method_and_status(larder):
    server = larder("--admin", "127.0.0.1:0")
    token = server.account("team", max_keys=10)
    stub, talk_stub = server.cache(), server.talk()
    requests = [cache.GetRequest(key=b"k"), cache.GetRequest(key=b"other")]
    stub.Set(cache.SetRequest(key=b"k", value=b"v" * 2000), metadata=bearer(token))
    answers = [stub.Get(request, metadata=bearer(token)) for request in requests]
    # The other lane, another protocol's error, and no method at all.
    stub.Get(requests[0], metadata=bearer(token), compression=grpc.Compression.Gzip)
    with pytest.raises(grpc.RpcError):
        stub.Get(requests[0], metadata=bearer("wrong"))
    with pytest.raises(grpc.RpcError):
        talk_stub.Get(talk.GetReq(key="gone"), metadata=bearer(token))
    with pytest.raises(grpc.RpcError):
        server.channel().unary_unary("/no.such.Service/Method")(b"", timeout=PATIENCE_S)

    page = parse(scrape(server))
    assert page.value("grpc_server_call_started_total", grpc_method=GET) == 4
    assert page.value("grpc_server_call_started_total", grpc_method="other") == 1
    ok = {"grpc_method": GET, "grpc_status": "OK"}
    failed = ok | {"grpc_status": "UNAUTHENTICATED"}
    for labels, calls in ((ok, 3), (failed, 1)):
        assert page.value("grpc_server_call_duration_seconds_count", **labels) == calls
        assert page.value(f"{SIZES.format('sent')}_count", **labels) == calls
    assert page.value("grpc_server_call_duration_seconds_sum", **ok) > 0
    received = sum(request.ByteSize() for request in requests)
    # A compressed message counts as it came.
    assert page.value(f"{SIZES.format('rcvd')}_sum", **ok) >= received
    sent = 2 * answers[0].ByteSize() + answers[1].ByteSize()
    assert page.value(f"{SIZES.format('sent')}_sum", **ok) == sent
    assert page.value(f"{SIZES.format('sent')}_sum", **failed) == 0
    assert page.value("larder_calls_in_flight") == 0
    for reason in ("TOKEN_INVALID", "KEY_NOT_FOUND", "METHOD_NOT_FOUND"):
        assert page.value("larder_call_failures_total", reason=reason) == 1
    assert page.value("larder_accounts_wait_seconds_count") >= 2


def test_the_cache_and_its_accounts_are_told(larder):
    server = larder("--admin", "127.0.0.1:0", "--max-memory", "64MiB")
    token = server.account("team", max_keys=2)
    stub = server.cache()
    for key in (b"a", b"b"):
        stub.Set(cache.SetRequest(key=key, value=b"v"), metadata=bearer(token))
    with pytest.raises(grpc.RpcError):
        stub.Set(cache.SetRequest(key=b"c", value=b"v"), metadata=bearer(token))
    stub.Get(cache.GetRequest(key=b"a"), metadata=bearer(token))
    stub.Get(cache.GetRequest(key=b"c"), metadata=bearer(token))
    page = parse(scrape(server))
    expected = {
        "larder_account_calls_total": 5,
        "larder_account_call_failures_total": 1,
        "larder_cache_sets_total": 2,
        "larder_cache_hits_total": 1,
        "larder_cache_misses_total": 1,
        "larder_cache_evictions_total": 0,
        "larder_cache_expirations_total": 0,
        "larder_cache_entries": 2,
        "larder_account_max_keys": 2,
    }
    for name, value in expected.items():
        assert page.value(name, account="team") == value, name
    assert page.value("larder_accounts_at_quota") == 1
    assert page.value("larder_cache_memory_limit_bytes") == 64 << 20
    assert 0 < page.value("larder_cache_memory_used_bytes") < 64 << 20
    for name in ("resident_memory_bytes", "open_fds", "cpu_seconds_total"):
        assert page.value(f"process_{name}") >= 0
    assert page.value("larder_transport_connections") >= 1


def test_so_many_accounts_have_labels_and_the_others_are_one(larder, tmp_path):
    config = tmp_path / "larder.toml"
    config.write_text("[telemetry]\nmetrics_accounts = 1\n")
    server = larder("--admin", "127.0.0.1:0", "--config", str(config))
    stub = server.cache()
    for name, calls in (("busy", 3), ("calm", 2), ("quiet", 1)):
        token = server.account(name)
        for number in range(calls):
            request = cache.SetRequest(key=b"%d" % number, value=b"v")
            stub.Set(request, metadata=bearer(token))
    # The administrator's own calls are of an account, too.
    page = parse(scrape(server))
    sets = {
        dict(series.labels)["account"]: value
        for series, value in page.samples.items()
        if series.name == "larder_cache_sets_total"
    }
    assert len(sets) == 2
    assert "other" in sets
    assert sum(sets.values()) == 6
