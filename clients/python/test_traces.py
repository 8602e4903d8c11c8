"""Traces: W3C Trace Context in and out, and spans at a collector."""

import json

import grpc
import pytest

from harness import PATIENCE_S, VERIFY, Larder, bearer, cache
from observed import Collector, attributes, parse, scrape

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-01")
NOT_SAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-00")
GET = "larder.cache.v1.CacheService/Get"
KEY = cache.GetRequest(key=b"k")
LANES = {"typed": grpc.Compression.NoCompression, "general": grpc.Compression.Gzip}


@pytest.fixture
def collector():
    """A collector that ends with its test."""
    started = Collector()
    yield started
    started.stop()


@pytest.fixture
def traced(larder, collector, tmp_path):
    """Starts servers that send their traces to the collector."""

    def start(*arguments: str, ratio: float = 0.0) -> Larder:
        config = tmp_path / "larder.toml"
        lines = [
            "[telemetry]",
            f'otlp_endpoint = "{collector.url}"',
            f"trace_ratio = {ratio}",
            'service_name = "shelf"',
        ]
        config.write_text("\n".join(lines))
        return larder("--config", str(config), "--log-format", "json", *arguments)

    return start


def log_of(server: Larder) -> list[dict]:
    """The lines of the access log."""
    lines = [json.loads(line) for line in server.stderr().splitlines()]
    return [line for line in lines if line["target"] == "access"]


@pytest.mark.parametrize("lane", LANES)
def test_a_span_arrives_with_its_ids_attributes_and_status(traced, collector, lane):
    server = traced("--admin", "127.0.0.1:0")
    token = server.account("team")
    metadata = (*bearer(token), SAMPLED, ("tracestate", "a=1,b=2"))
    stub = server.cache()
    stub.Get(KEY, metadata=metadata, timeout=PATIENCE_S, compression=LANES[lane])
    with pytest.raises(grpc.RpcError):
        stub.Get(
            KEY,
            metadata=(*bearer("wrong"), SAMPLED),
            timeout=PATIENCE_S,
            compression=LANES[lane],
        )
    # What the collector has not had yet goes when the server ends.
    server.stop()

    [good, bad] = collector.spans()
    for span in (good, bad):
        assert span.name == GET
        assert span.kind == span.SPAN_KIND_SERVER
        assert span.trace_id.hex() == TRACE
        assert span.parent_span_id.hex() == PARENT
        assert len(span.span_id) == 8
        assert span.span_id.hex() not in (PARENT, "0" * 16)
        # The parent is known to be of another process.
        assert span.flags == 0x301
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        # Neither is a fault of the server's.
        assert span.status.code == span.status.STATUS_CODE_UNSET
    assert good.span_id != bad.span_id
    assert (good.trace_state, bad.trace_state) == ("a=1,b=2", "")
    known = attributes(good)
    assert known["rpc.system"] == "grpc"
    assert (known["rpc.service"], known["rpc.method"]) == tuple(GET.split("/"))
    assert known["rpc.grpc.status_code"] == 0
    assert known["network.peer.address"] == "127.0.0.1"
    assert known["larder.account"] == "team"
    assert known["larder.request_bytes"] > 0
    assert known["larder.previous_attempts"] == 0
    assert attributes(bad)["rpc.grpc.status_code"] == 16
    assert attributes(bad)["error.type"] == "TOKEN_INVALID"
    resource = attributes(collector.requests[0].resource_spans[0].resource)
    assert resource["service.name"] == "shelf"
    assert len(resource["service.instance.id"]) == 32

    [*_, good_line, bad_line] = log_of(server)
    assert good_line["trace_id"] == bad_line["trace_id"] == TRACE


@pytest.mark.parametrize("lane", LANES)
def test_the_parent_decides_and_a_bad_one_is_none(traced, collector, lane):
    server = traced(ratio=1.0)
    server.cache().Get(KEY, metadata=[NOT_SAMPLED], timeout=PATIENCE_S, compression=LANES[lane])
    bad = [("traceparent", SAMPLED[1].upper()), ("tracestate", "a=1")]
    server.cache().Get(KEY, metadata=bad, timeout=PATIENCE_S, compression=LANES[lane])
    server.stop()
    [span] = collector.spans()
    assert span.trace_id.hex() not in (TRACE, "0" * 32)
    assert (span.parent_span_id, span.trace_state) == (b"", "")
    [unsampled, restarted] = log_of(server)
    assert unsampled["trace_id"] == TRACE
    assert restarted["trace_id"] == span.trace_id.hex()


def test_nothing_is_traced_without_a_collector(larder):
    server = larder("--log-format", "json", "--admin", "127.0.0.1:0")
    server.cache().Get(KEY, metadata=[SAMPLED], timeout=PATIENCE_S)
    server.cache().Get(KEY, timeout=PATIENCE_S)
    assert "larder_spans" not in scrape(server)
    server.stop()
    [traced, plain] = log_of(server)
    assert traced["trace_id"] == TRACE
    assert "trace_id" not in plain


def test_the_accounts_server_is_told_of_the_trace(larder, traced):
    accounts = larder("--log-format", "json")
    token = accounts.account("team")
    server = traced("--accounts", accounts.url)
    for metadata in ([SAMPLED], [NOT_SAMPLED]):
        # Each by a token of its own: answers are kept.
        secret = token if metadata == [SAMPLED] else accounts.token("team").secret
        call = server.cache().Get
        with pytest.raises(grpc.RpcError):
            call(KEY, metadata=(*bearer(secret), *metadata), timeout=PATIENCE_S)
    server.stop()
    accounts.stop()
    asked = [line for line in log_of(accounts) if line["method"].endswith("/VerifyToken")]
    assert [line["trace_id"] for line in asked] == [TRACE, TRACE]


def test_what_a_collector_does_not_take_is_dropped_and_counted(traced, collector):
    server = traced("--admin", "127.0.0.1:0", ratio=1.0)
    collector.refuses.set()
    # A whole batch does not wait for more.
    for _ in range(512):
        server.cache().Get(KEY, timeout=PATIENCE_S)
    while True:
        page = parse(scrape(server))
        dropped = page.value("larder_spans_dropped_total", cause="export_failed")
        if dropped:
            break
    assert dropped == 512
    assert page.value("larder_spans_exported_total") == 0
    assert page.value("larder_spans_dropped_total", cause="queue_full") == 0


@pytest.mark.parametrize("lane", LANES)
def test_what_the_accounts_server_is_asked_is_a_span_between_the_two_servers(
    traced, collector, lane
):
    accounts = traced()
    secret = accounts.account("team")
    verifier = accounts.token("team", VERIFY).secret
    file = accounts.home / "verifier"
    file.write_text(verifier)
    server = traced("--accounts", accounts.url, "--accounts-token-file", str(file))
    stub, trace = server.cache(), (*bearer(secret), SAMPLED)
    compression = LANES[lane]
    stub.Get(KEY, metadata=trace, timeout=PATIENCE_S, compression=compression)
    # This one is answered from what is known.
    stub.Get(KEY, metadata=trace, timeout=PATIENCE_S, compression=compression)
    unknown = (*bearer("unknown-token"), SAMPLED)
    with pytest.raises(grpc.RpcError):
        stub.Get(KEY, metadata=unknown, timeout=PATIENCE_S, compression=compression)
    server.stop()
    accounts.stop()
    spans = collector.spans()
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    asked = [span for span in spans if span.kind == span.SPAN_KIND_CLIENT]
    verify = "larder.accounts.v1.AccountService/VerifyToken"
    assert [span.name for span in asked] == [verify] * 2
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span, code in zip(asked, (0, 5), strict=True):
        assert attributes(span)["rpc.grpc.status_code"] == code
        is_error = span.status.code == span.status.STATUS_CODE_ERROR
        assert is_error == (code != 0)
        host, port = accounts.address.rsplit(":", 1)
        assert attributes(span)["server.address"] == host
        assert attributes(span)["server.port"] == int(port)
        # It is known that the parent is here.
        assert span.flags == 0x101
        served = by_id[span.parent_span_id]
        assert (served.name, served.kind) == (GET, served.SPAN_KIND_SERVER)
        assert served.start_time_unix_nano <= span.end_time_unix_nano
        [answered] = [it for it in spans if it.parent_span_id == span.span_id]
        assert (answered.name, answered.kind) == (verify, answered.SPAN_KIND_SERVER)
