"""Compressed answers, as stock clients read them."""

import gzip
import http.client
import json

import grpc
import pytest

from harness import PATIENCE_S, cache, talk
from observed import parse, scrape

TEXT = b'{"name": "gopher", "what": "a value that has much in common"}' * 10_000
SENT = "grpc_server_call_sent_total_compressed_message_size_bytes_sum"
SERVICE = "larder.cache.v1.CacheService"


@pytest.fixture(params=["off", "on"])
def setting(request) -> str:
    return request.param


@pytest.fixture
def server(larder, tmp_path, setting):
    file = tmp_path / "larder.toml"
    # Compressing takes a build that is not optimised so long that it would refuse calls.
    never_late = "[admission]\nlate_ms = 0\n"
    on = '[compression]\nanswers_above = "1KiB"\n' if setting == "on" else ""
    file.write_text(never_late + on)
    options = ("--anonymous", "default", "--shared-keyspace", "--admin", "127.0.0.1:0")
    server = larder("--config", str(file), *options)
    stub = server.cache()
    for key in (b"a", b"b"):
        stub.Set(cache.SetRequest(key=key, value=TEXT), timeout=PATIENCE_S)
    return server


def check_sent(server, setting: str, method: str, whole: int) -> None:
    """Of so many bytes a tenth has left, if the server compresses."""
    sent = parse(scrape(server)).value(SENT, grpc_method=method, grpc_status="OK")
    if setting == "on":
        assert 0 < sent < whole / 10
    else:
        assert sent >= whole


# A compressed request takes the general lane.
@pytest.mark.parametrize(
    "compression",
    [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate],
    ids=str,
)
def test_grpcio_reads_compressed_answers(server, setting, compression):
    options = {"timeout": PATIENCE_S, "compression": compression}
    if compression == grpc.Compression.Deflate:
        with pytest.raises(grpc.RpcError) as refused:
            server.cache().Get(cache.GetRequest(key=b"a"), **options)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        return
    for _ in range(3):
        answer = server.cache().Get(cache.GetRequest(key=b"a"), **options)
        assert answer.hit.value == TEXT
    check_sent(server, setting, f"{SERVICE}/Get", 3 * len(TEXT))
    batch = server.cache().BatchGet(cache.BatchGetRequest(keys=[b"a", b"b"]), **options)
    assert [result.hit.value for result in batch.results] == [TEXT, TEXT]
    check_sent(server, setting, f"{SERVICE}/BatchGet", 2 * len(TEXT))
    parts = server.cache().Dump(cache.DumpRequest(), **options)
    dumped = [entry for part in parts for entry in part.entries]
    assert {entry.key: entry.value for entry in dumped} == {b"a": TEXT, b"b": TEXT}
    check_sent(server, setting, f"{SERVICE}/Dump", 2 * len(TEXT))
    assert server.talk().Get(talk.GetReq(key="a"), **options).val == TEXT
    assert [item.val for item in server.talk().Dump(talk.DumpReq(), **options)] == [TEXT, TEXT]
    check_sent(server, setting, "rpc.Cache/Dump", 2 * len(TEXT))


@pytest.mark.parametrize("offer", [None, "gzip", "gzip, br", "br", "gzip;q=0"], ids=str)
def test_an_answer_in_json_is_compressed_if_its_caller_reads_that(server, setting, offer):
    host, port = server.address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
    headers = {"content-type": "application/json"}
    if offer:
        headers["accept-encoding"] = offer
    body = json.dumps({"key": "YQ=="})
    connection.request("POST", f"/{SERVICE}/Get", body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if setting == "on" and offer in ("gzip", "gzip, br"):
        assert answer.headers["content-encoding"] == "gzip"
        content = gzip.decompress(content)
    else:
        assert "content-encoding" not in answer.headers
    assert ("accept-encoding" in answer.headers.get("vary", "")) == (setting == "on")
    assert json.loads(content)["hit"]["key"] == "YQ=="
    connection.close()
