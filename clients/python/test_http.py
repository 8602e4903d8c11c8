"""Without gRPC: Connect and JSON with curl and plain HTTP, gRPC-Web, and what browsers may do."""

import base64
import http.client
import json
import subprocess

import pytest

import raw
from harness import PATIENCE_S, bearer, cache, environment, talk
from raw import GRPC, JSON, PROTO, WEB, frame, frames_of, http1, http2

GET = "/larder.cache.v1.CacheService/Get"
SET = "/larder.cache.v1.CacheService/Set"
KEY = base64.b64encode(b"gopher").decode()
VALUE = base64.b64encode(b"con").decode()


def curl(*arguments: str) -> subprocess.CompletedProcess:
    """Runs curl, quietly."""
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", str(PATIENCE_S), *arguments],
        capture_output=True,
        env=environment(),
    )


@pytest.fixture(scope="module", autouse=True)
def _gopher(server):
    """Every test finds this entry."""
    server.cache().Set(cache.SetRequest(key=b"gopher", value=b"con"))


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl(server, version):
    kind = ["-H", "content-type: application/json"]
    done = curl(version, *kind, "-d", json.dumps({"key": KEY}), server.url + GET)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["hit"]["value"] == VALUE

    wrong = json.dumps({"key": ""})
    done = curl(version, *kind, "-w", "\n%{http_code}", "-d", wrong, server.url + GET)
    body, status = done.stdout.decode().rsplit("\n", 1)
    assert status == "400"
    error = json.loads(body)
    assert error["code"] == "invalid_argument"
    assert "key" in error["message"]
    assert {detail["type"] for detail in error["details"]} == {
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
    }


# gRPC needs the trailers of HTTP/2.
PROTOCOLS = [
    (GRPC, http2),
    *((protocol, send) for protocol in (PROTO, JSON, WEB) for send in (http1, http2)),
]


@pytest.mark.parametrize(("protocol", "send"), PROTOCOLS)
def test_every_protocol_on_every_version(server, protocol, send):
    message = cache.GetRequest(key=b"gopher").SerializeToString()
    body = {
        GRPC: frame(message),
        WEB: frame(message),
        PROTO: message,
        JSON: json.dumps({"key": KEY}).encode(),
    }[protocol]
    headers = [("content-type", protocol), ("te", "trailers")]
    reply = send(server.address, "POST", GET, headers, body)
    assert (reply.http, reply.outcome()) == (200, ("OK", ""))
    if protocol == JSON:
        hit = json.loads(reply.body)["hit"]
        assert (hit["key"], hit["value"]) == (KEY, VALUE)
    else:
        packed = reply.body if protocol == PROTO else frames_of(reply.body)[0][1]
        assert cache.GetResponse.FromString(packed).hit.value == b"con"


def test_json_has_the_names_and_forms_of_proto3(server):
    body = {"key": KEY, "value": VALUE, "ttl": "1.5s", "validateOnly": True}
    reply = http1(server.address, "POST", SET, [("content-type", JSON)], json.dumps(body).encode())
    answer = json.loads(reply.body)
    assert answer["validatedOnly"] is True
    assert answer["applied"]["entry"]["sizeBytes"] == str(6 + 3 + 64)
    assert answer["applied"]["entry"]["expireTime"].endswith("Z")


def test_fields_of_json_that_nobody_knows_are_ignored_as_on_the_wire(server):
    headers = [("content-type", JSON)]
    body = json.dumps({"key": KEY, "kye": KEY, "later": {"version": [1]}}).encode()
    assert "hit" in json.loads(http1(server.address, "POST", GET, headers, body).body)
    # What must be there is missed.
    reply = http1(server.address, "POST", GET, headers, json.dumps({"kye": KEY}).encode())
    assert (reply.http, reply.outcome()) == (400, ("INVALID_ARGUMENT", "KEY_EMPTY"))


@pytest.mark.parametrize("send", [http1, http2])
@pytest.mark.parametrize("size", [15 << 10, 17 << 10, 60 << 10])
def test_metadata_has_one_limit_in_all_versions_of_http(server, send, size):
    # In fields of 8 KiB, as proxies make them.
    whole, rest = divmod(size, 8 << 10)
    fields = [(f"x-{n}", "v" * (8 << 10)) for n in range(whole)] + [("x-rest", "v" * rest)]
    headers = [("content-type", JSON), *fields]
    reply = send(server.address, "POST", GET, headers, json.dumps({"key": KEY}).encode())
    if size < 16 << 10:
        assert (reply.http, reply.outcome()) == (200, ("OK", ""))
    else:
        assert reply.http == 431
        assert reply.outcome() == ("RESOURCE_EXHAUSTED", "METADATA_TOO_LARGE")


def test_reads_can_be_gets(server):
    message = base64.urlsafe_b64encode(cache.GetRequest(key=b"gopher").SerializeToString())
    query = f"?connect=v1&encoding=proto&base64=1&message={message.decode()}"
    reply = http1(server.address, "GET", GET + query, [], b"")
    assert reply.http == 200
    assert cache.GetResponse.FromString(reply.body).hit.value == b"con"


def test_credentials_and_dry_run_in_json(server):
    token = server.account("json")
    headers = [("content-type", JSON), *bearer(token)]
    body = json.dumps({"key": KEY, "value": VALUE}).encode()
    dry = http1(server.address, "POST", SET, [*headers, ("dry-run", "1")], body)
    assert json.loads(dry.body)["validatedOnly"] is True
    assert dry.headers["dry-run"] == "1"
    reply = http1(server.address, "POST", GET, headers, json.dumps({"key": KEY}).encode())
    assert "miss" in json.loads(reply.body)
    wrong = http1(server.address, "POST", GET, [("content-type", JSON), *bearer("wrong")], body)
    assert (wrong.http, wrong.outcome()) == (401, ("UNAUTHENTICATED", "TOKEN_INVALID"))


def test_the_talks_contract_in_json(server):
    headers = [("content-type", JSON)]
    body = json.dumps({"key": "json", "val": VALUE}).encode()
    assert http1(server.address, "POST", "/rpc.Cache/Store", headers, body).body == b"{}"
    reply = http1(server.address, "POST", "/rpc.Cache/Get", headers, b'{"key":"json"}')
    assert json.loads(reply.body) == {"val": VALUE}
    reply = http1(server.address, "POST", "/rpc.Cache/Get", headers, b'{"key":"absent"}')
    assert (reply.http, reply.outcome()) == (404, ("NOT_FOUND", "KEY_NOT_FOUND"))
    assert json.loads(reply.body)["message"] == "Key not found absent"


def test_a_stream_over_grpc_web(server):
    token = server.account("web")
    server.talk().Store(talk.StoreReq(key="k", val=b"v"), metadata=bearer(token))
    body = frame(talk.DumpReq().SerializeToString())
    headers = [("content-type", WEB), *bearer(token)]
    reply = http1(server.address, "POST", "/rpc.Cache/Dump", headers, body)
    assert reply.outcome() == ("OK", "")
    items = [talk.DumpItem.FromString(data) for flags, data in frames_of(reply.body) if not flags]
    assert [(item.key, item.val) for item in items] == [("k", b"v")]


OURS, THEIRS = "https://console.example", "https://elsewhere.example"
PREFLIGHT = [
    ("access-control-request-method", "POST"),
    ("access-control-request-headers", "content-type,authorization"),
]


def test_pages_of_allowed_origins_may_call(larder):
    server = larder("--cors-origin", OURS)
    reply = http1(server.address, "OPTIONS", GET, [("origin", OURS), *PREFLIGHT], b"")
    assert reply.http in (200, 204)
    assert reply.headers["access-control-allow-origin"] == OURS
    assert "POST" in reply.headers["access-control-allow-methods"]
    allowed = reply.headers["access-control-allow-headers"].lower()
    for header in ("content-type", "authorization", "dry-run", "x-grpc-web"):
        assert header in allowed

    headers = [("content-type", JSON), ("origin", OURS)]
    reply = http1(server.address, "POST", GET, headers, json.dumps({"key": KEY}).encode())
    assert reply.http == 200
    assert reply.headers["access-control-allow-origin"] == OURS
    assert "origin" in reply.headers["vary"].lower()
    assert "grpc-status" in reply.headers["access-control-expose-headers"].lower()


def test_pages_of_other_origins_may_not(larder):
    server = larder("--cors-origin", OURS)
    reply = http1(server.address, "OPTIONS", GET, [("origin", THEIRS), *PREFLIGHT], b"")
    assert "access-control-allow-origin" not in reply.headers
    headers = [("content-type", JSON), ("origin", THEIRS)]
    reply = http1(server.address, "POST", GET, headers, json.dumps({"key": KEY}).encode())
    assert reply.outcome() == ("PERMISSION_DENIED", "HOST_DENIED")
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("localhost", True),
        ("127.0.0.1:80", True),
        ("[::1]:80", True),
        ("rebound.example", False),
        ("rebound.example:5051", False),
        ("localhost.rebound.example", False),
        ("127.0.0.1.rebound.example", False),
    ],
)
def test_an_anonymous_server_answers_only_to_names_of_its_machine(server, host, served):
    headers = [("content-type", JSON), ("host", host)]
    body = json.dumps({"key": KEY}).encode()
    reply = http1(server.address, "POST", GET, headers, body)
    expected = ("OK", "") if served else ("PERMISSION_DENIED", "HOST_DENIED")
    assert reply.outcome() == expected


def test_a_connection_serves_many_calls(server):
    host, port = server.address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=raw.LIMIT_S)
    socket = None
    for _ in range(10):
        connection.request("POST", GET, json.dumps({"key": KEY}), {"content-type": JSON})
        response = connection.getresponse()
        assert json.loads(response.read())["hit"]["value"] == VALUE
        assert socket in (None, connection.sock), "the server closed the connection"
        socket = connection.sock
    connection.close()
