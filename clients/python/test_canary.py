"""Tokens, keys and values stay out of everything that a server tells of itself.

Every method is called, with success and without, on both lanes and in other protocols, at the
most talkative level of the log, with words that occur nowhere else.
"""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

import grpc
import pytest

from harness import (
    CHANNEL_OPTIONS,
    PATIENCE_S,
    accounts,
    bearer,
    cache,
    channelz,
    channelz_grpc,
    talk,
)
from observed import Collector, scrape

TOKEN = "canary-of-a-token-2f7d1c0a9b3e5f68"
UNKNOWN = "canary-of-an-unknown-token-77aa"
KEY = "canary-of-a-key-5d41"
VALUE = "canary-of-a-value-9e07"
CANARIES = {"token": TOKEN, "unknown token": UNKNOWN, "key": KEY, "value": VALUE}

SERVICES = [
    talk.DESCRIPTOR.services_by_name["Cache"],
    talk.DESCRIPTOR.services_by_name["Accounts"],
    cache.DESCRIPTOR.services_by_name["CacheService"],
    accounts.DESCRIPTOR.services_by_name["AccountService"],
]


def canary(field) -> str | None:
    """What goes into a field, by its name."""
    name = field.name
    if name in ("token", "account_token", "secret"):
        return TOKEN
    if name in ("key", "keys", "prefix", "key_prefix"):
        return KEY
    return VALUE if name in ("value", "val") else None


def fill(message) -> None:
    """Puts the canaries into every field that may hold one."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            if field.containing_oneof is None and field.name in ("entries", "requests"):
                fill(getattr(message, field.name).add())
            continue
        word = canary(field)
        if word is None or field.type not in (field.TYPE_STRING, field.TYPE_BYTES):
            continue
        word = word if field.type == field.TYPE_STRING else word.encode()
        if field.is_repeated:
            getattr(message, field.name).append(word)
        else:
            setattr(message, field.name, word)


def call(channel: grpc.Channel, method, metadata, compression) -> grpc.StatusCode:
    """Calls a method, whatever its kind, and says how it ended."""
    request = method.input_type._concrete_class()
    fill(request)
    kind = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    invoke = kind(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=method.output_type._concrete_class.FromString,
    )
    given = iter([request]) if method.client_streaming else request
    options = {"metadata": metadata, "timeout": PATIENCE_S, "compression": compression}
    try:
        answer = invoke(given, **options)
        if method.server_streaming:
            list(answer)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def forms(word: str) -> list[str]:
    """The ways in which a word may stand in a text."""
    raw = word.encode()
    numbers = ", ".join(str(byte) for byte in raw)
    encoded = base64.b64encode(raw).decode()
    # The middle of it is the same wherever the word begins in what is encoded.
    shifted = [base64.b64encode(b"x" * n + raw).decode()[4:-4] for n in (1, 2)]
    return [word, raw.hex(), numbers, encoded.rstrip("="), *shifted]


def requests_over_http(server) -> None:
    """Other protocols, and what may stand in a URL."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    base, admin = f"http://{server.address}", f"http://{server.admin}"
    path = "/larder.cache.v1.CacheService/Get"
    body = json.dumps({"key": base64.b64encode(KEY.encode()).decode()}).encode()
    query = urllib.parse.urlencode({"encoding": "json", "message": body.decode()})
    head = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
    for url, content in (
        (base + path, body),
        (base + path, body[:-3]),
        (f"{base}{path}?{query}", None),
        (f"{base}/{KEY}?{TOKEN}", None),
        (f"{admin}/{KEY}", None),
    ):
        request = urllib.request.Request(url, content, head)  # noqa: S310
        try:
            opener.open(request, timeout=PATIENCE_S).read()
        except urllib.error.HTTPError as error:
            error.close()


@pytest.fixture
def collector():
    """A collector that ends with its test."""
    started = Collector()
    yield started
    started.stop()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["accounts here", "accounts elsewhere"])
def test_no_canary_is_told(larder, collector, tmp_path, elsewhere):
    config = tmp_path / "larder.toml"
    config.write_text(f'[telemetry]\notlp_endpoint = "{collector.url}"\ntrace_ratio = 1.0\n')
    options = ["--config", str(config), "--admin", "127.0.0.1:0"]
    options += ["--log-calls-per-second", "1000000"]
    home = larder(*options, log="trace")
    home.account("team", max_keys=1000)
    home.token("team", secret=TOKEN)
    servers = [home]
    if elsewhere:
        verifier = tmp_path / "verifier"
        verifier.write_text(home.admin_token)
        remote = ["--accounts", home.url, "--accounts-token-file", str(verifier)]
        servers.append(larder(*options, *remote, log="trace"))
    server = servers[-1]

    ended = set()
    channel = server.channel()
    credentials = [
        bearer(TOKEN),
        bearer(UNKNOWN),
        bearer(home.admin_token),
        (("authorization", f"Basic {TOKEN}"),),
        (*bearer(TOKEN), *bearer(TOKEN)),
        (*bearer(TOKEN), ("dry-run", VALUE)),
        (),
    ]
    for service in SERVICES:
        for method in service.methods:
            for metadata in credentials:
                for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
                    ended.add((method.name, call(channel, method, metadata, compression)))
    codes = {code for _, code in ended}
    assert grpc.StatusCode.UNAUTHENTICATED in codes
    assert grpc.StatusCode.INVALID_ARGUMENT in codes
    succeeded = {name for name, code in ended if code == grpc.StatusCode.OK}
    assert {"Set", "Get", "Store", "Dump", "Load", "BatchSet", "BatchGet"} <= succeeded
    requests_over_http(server)

    told = {}
    for number, each in enumerate(servers):
        told[f"metrics {number}"] = scrape(each)
        with grpc.insecure_channel(each.admin, CHANNEL_OPTIONS) as admin:
            stub = channelz_grpc.ChannelzStub(admin)
            page = stub.GetServers(channelz.GetServersRequest(), timeout=PATIENCE_S)
            told[f"channelz {number}"] = str(page)
            for server_id in [one.ref.server_id for one in page.server]:
                request = channelz.GetServerSocketsRequest(server_id=server_id)
                refs = stub.GetServerSockets(request, timeout=PATIENCE_S).socket_ref
                told[f"channelz {number}"] += str(refs) + "".join(
                    str(stub.GetSocket(channelz.GetSocketRequest(socket_id=ref.socket_id)))
                    for ref in refs
                )
    for number, each in reversed(list(enumerate(servers))):
        each.stop()
        told[f"log {number}"] = each.stderr()
    told["traces"] = str(collector.requests)

    # It is no silence that is tested.
    assert "larder_account_calls_total" in told["metrics 0"]
    for what in (" TRACE ", "UNAUTHENTICATED", "INVALID_ARGUMENT"):
        assert what in told[f"log {len(servers) - 1}"]
    assert "rpc.method" in told["traces"]
    for name, word in CANARIES.items():
        for where, text in told.items():
            for form in forms(word):
                at = text.find(form)
                assert at < 0, f"a {name} in the {where}: {text[max(0, at - 200) : at + 100]}"
