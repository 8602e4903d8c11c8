"""Who may call what: every RPC of the contracts, by every kind of caller, on a running server.

The RPCs come from the contracts' descriptors, so that a new one without a request here fails. The
outcome is `docs/authorization.md`; UPDATE_SNAPSHOTS=1 writes it anew.
"""

import contextlib
import http.client
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
import trustme
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from harness import (
    CHANNEL_OPTIONS,
    PATIENCE_S,
    READ,
    VERIFY,
    WRITE,
    Larder,
    accounts,
    bearer,
    cache,
    entry,
    talk,
)
from raw import outcome_of_connect
from stubs import ROOT

TABLE = ROOT / "docs/authorization.md"
SECRET = b"a value of the account team"
KEY, NUMBER, PREFIX = b"mine/k", b"mine/n", b"mine/"
TEAM = "accounts/team"

# What each caller is, in the order of the columns.
CALLERS = {
    "none": "no credential",
    "wrong": "a token that nobody made",
    "expired": "a token whose time is up",
    "revoked": "a token that was revoked",
    "read": "a token of `team` that may read",
    "write": "a token of `team` that may write",
    "prefix in": "a token of `team` for the keys `mine/…` and `ours/…`",
    "prefix out": "a token of `team` for the keys `yours/…`",
    "space in": "a token of `team` for the namespace `default`",
    "space out": "a token of `team` for the namespace `elsewhere`",
    "other": "a token of another account, which may read and write there",
    "verify": "a cache server's token",
    "admin": "the administrator's token, of the account `default`",
    "cert": "no token, and a client certificate that stands for `team`, read and write",
    "stranger": "no token, and a client certificate that stands for nobody",
}
CERTIFICATES = ("cert", "stranger")


class Prepared(NamedTuple):
    """What requests name."""

    token: str
    secret: str


def requests(prepared: Prepared) -> dict[str, Message]:
    """A request for each RPC; none changes anything."""
    v1, control = "/larder.cache.v1.CacheService/", "/larder.accounts.v1.AccountService/"
    dry = {"validate_only": True}
    return {
        v1 + "Get": cache.GetRequest(key=KEY),
        v1 + "GetAndTouch": cache.GetAndTouchRequest(key=KEY, never=True, **dry),
        v1 + "BatchGet": cache.BatchGetRequest(keys=[KEY]),
        v1 + "Set": cache.SetRequest(key=KEY, **dry),
        v1 + "Delete": cache.DeleteRequest(key=KEY, **dry),
        v1 + "BatchSet": cache.BatchSetRequest(requests=[cache.SetRequest(key=KEY)], **dry),
        v1 + "BatchDelete": cache.BatchDeleteRequest(keys=[KEY], **dry),
        v1 + "Touch": cache.TouchRequest(key=KEY, never=True, **dry),
        v1 + "DeletePrefix": cache.DeletePrefixRequest(prefix=PREFIX, **dry),
        v1 + "Increment": cache.IncrementRequest(key=NUMBER, delta=1, **dry),
        v1 + "ListKeys": cache.ListKeysRequest(prefix=PREFIX),
        v1 + "Dump": cache.DumpRequest(prefix=PREFIX),
        v1 + "Load": cache.LoadRequest(entries=[entry.Entry(key=KEY)], **dry),
        v1 + "GetUsage": cache.GetUsageRequest(),
        v1 + "GetServerInfo": cache.GetServerInfoRequest(),
        "/rpc.Cache/Store": talk.StoreReq(key=KEY.decode()),
        "/rpc.Cache/Get": talk.GetReq(key=KEY.decode()),
        "/rpc.Cache/Dump": talk.DumpReq(),
        "/rpc.Accounts/GetByToken": talk.GetByTokenReq(token=prepared.secret),
        control + "CreateAccount": accounts.CreateAccountRequest(account_id="new", **dry),
        control + "GetAccount": accounts.GetAccountRequest(name=TEAM),
        control + "ListAccounts": accounts.ListAccountsRequest(),
        control + "UpdateAccount": accounts.UpdateAccountRequest(
            account=accounts.Account(name=TEAM, max_keys=9), **dry
        ),
        control + "DeleteAccount": accounts.DeleteAccountRequest(name=TEAM, **dry),
        control + "CreateToken": accounts.CreateTokenRequest(parent=TEAM, **dry),
        control + "ListTokens": accounts.ListTokensRequest(parent=TEAM),
        control + "RevokeToken": accounts.RevokeTokenRequest(name=prepared.token, **dry),
        control + "VerifyToken": accounts.VerifyTokenRequest(secret=prepared.secret),
        "/grpc.health.v1.Health/Check": health_pb2.HealthCheckRequest(),
        "/grpc.health.v1.Health/List": health_pb2.HealthListRequest(),
        "/grpc.health.v1.Health/Watch": health_pb2.HealthCheckRequest(),
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": (
            reflection_pb2.ServerReflectionRequest(list_services="")
        ),
    }


def contract() -> Iterator[MethodDescriptor]:
    """Every RPC of the contracts."""
    for module in (cache, talk, accounts, health_pb2, reflection_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def path_of(method: MethodDescriptor) -> str:
    """The RPC's path."""
    return f"/{method.containing_service.full_name}/{method.name}"


def test_every_rpc_has_a_request():
    assert {path_of(method) for method in contract()} == set(requests(Prepared("", "")))


def reason(status: status_pb2.Status) -> str:
    """The reason of the catalogue in a status."""
    info = error_details_pb2.ErrorInfo()
    assert any(packed.Unpack(info) for packed in status.details), status
    return info.reason


def within(reply: Message) -> str:
    """What a reply says of its items, if one was refused."""
    for result in getattr(reply, "results", ()):
        if "error" in result.DESCRIPTOR.fields_by_name and result.HasField("error"):
            return f"item: {reason(result.error)}"
    if isinstance(reply, cache.LoadResponse) and reply.refused_count:
        return f"item: {reason(reply.first_refusal)}"
    return "OK"


def by_grpc(
    channel: grpc.Channel, method: MethodDescriptor, request: Message, metadata, compression
) -> tuple[str, bytes]:
    """Calls with stock gRPC; what came of it, and all that was shown."""
    kind = GetMessageClass(method.output_type)
    shape = (method.client_streaming, method.server_streaming)
    make = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }[shape]
    stub = make(
        path_of(method),
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=kind.FromString,
    )
    options = {"metadata": metadata, "timeout": PATIENCE_S, "compression": compression}
    try:
        if shape == (False, False):
            replies = [stub(request, **options)]
        elif method.name == "Watch":
            stream = stub(request, **options)
            replies = [next(stream)]
            stream.cancel()
        else:
            replies = list(stub(iter([request]) if method.client_streaming else request, **options))
    except grpc.RpcError as error:
        return reason(rpc_status.from_call(error)), b""
    outcomes = [found for found in map(within, replies) if found != "OK"]
    return (outcomes or ["OK"])[0], b"".join(reply.SerializeToString() for reply in replies)


def by_json(
    address: str, context: ssl.SSLContext, method: MethodDescriptor, request: Message, metadata
) -> str:
    """Calls with JSON over HTTP/1.1."""
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPSConnection(host, int(port), timeout=PATIENCE_S, context=context)
    with contextlib.closing(connection):
        headers = {"content-type": "application/json", **dict(metadata)}
        body = json_format.MessageToJson(request).encode()
        connection.request("POST", path_of(method), body, headers)
        reply = connection.getresponse()
        text = reply.read()
    if reply.status != 200:
        return outcome_of_connect(text)[1]
    return within(json_format.Parse(text, GetMessageClass(method.output_type)()))


def expired(server: Larder) -> str:
    """A token whose time is up: it is used until it is refused."""
    end = Timestamp()
    end.GetCurrentTime()
    end.FromMilliseconds(end.ToMilliseconds() + 200)
    secret = server.token("team", expire_time=end).secret
    with contextlib.suppress(grpc.RpcError):
        while True:
            server.control().ListAccounts(
                accounts.ListAccountsRequest(), metadata=bearer(secret), timeout=PATIENCE_S
            )
    stub = server.control()
    while True:
        with contextlib.suppress(grpc.RpcError):
            stub.VerifyToken(
                accounts.VerifyTokenRequest(secret=secret),
                metadata=bearer(server.admin_token),
                timeout=PATIENCE_S,
            )
            continue
        return secret


def tokens(server: Larder) -> dict[str, str]:
    """Makes the accounts, and a token for each caller that has one."""
    whole = server.account("team")
    revoked = server.token("team")
    server.control().RevokeToken(
        accounts.RevokeTokenRequest(name=revoked.token.name), metadata=bearer(server.admin_token)
    )
    return {
        "whole": whole,
        "wrong": "nobody-made-this",
        "expired": expired(server),
        "revoked": revoked.secret,
        "read": server.token("team", READ).secret,
        "write": server.token("team", WRITE).secret,
        "prefix in": server.token("team", key_prefix=PREFIX, key_prefixes=[b"ours/"]).secret,
        "prefix out": server.token("team", key_prefix=b"yours/").secret,
        "space in": server.token("team", namespaces=["default"]).secret,
        "space out": server.token("team", namespaces=["elsewhere"]).secret,
        "other": server.account("other"),
        "verify": server.token("team", VERIFY).secret,
        "admin": server.admin_token,
    }


def fill(server: Larder, whole: str) -> None:
    """Stores what callers look for."""
    for key, value in ((KEY, SECRET), (NUMBER, b"7")):
        server.cache().Set(
            cache.SetRequest(key=key, value=value), metadata=bearer(whole), timeout=PATIENCE_S
        )


def metadata_of(caller: str, secrets: dict[str, str], path: str) -> tuple:
    """A caller's credential. The talk's Store has no field to change nothing by."""
    shown = bearer(secrets[caller]) if caller in secrets else ()
    return (*shown, ("dry-run", "1")) if path == "/rpc.Cache/Store" else shown


class Certified:
    """A server of TLS that knows some clients by their certificates, and a socket in clear text."""

    def __init__(self, larder: Callable[..., Larder], folder: Path, authority: trustme.CA):
        self.authority = authority
        issued = authority.issue_cert("127.0.0.1")
        self.certificates = {
            "cert": authority.issue_cert("web.team.example", common_name="web"),
            "stranger": authority.issue_cert("web.elsewhere.example", common_name="web"),
        }
        issued.cert_chain_pems[0].write_to_path(folder / "cert")
        issued.private_key_pem.write_to_path(folder / "key")
        authority.cert_pem.write_to_path(folder / "ca")
        (folder / "config").write_text(
            "[tls]\nclient_certificates = 'optional'\n"
            "[[tls.account]]\ndns = '*.team.example'\naccount = 'team'\n"
        )
        self.server = larder(
            *("--tls-cert", str(folder / "cert"), "--tls-key", str(folder / "key")),
            *("--client-ca", str(folder / "ca"), "--config", str(folder / "config")),
            *("--listen", f"unix:{folder}/socket"),
            listeners=2,
        )
        self.address, self.server.address = self.server.addresses
        self.secrets = tokens(self.server)
        fill(self.server, self.secrets["whole"])

    def channel(self, caller: str) -> grpc.Channel:
        """A channel with a caller's certificate."""
        own = self.certificates.get(caller)
        credentials = grpc.ssl_channel_credentials(
            self.authority.cert_pem.bytes(),
            own and own.private_key_pem.bytes(),
            own and own.cert_chain_pems[0].bytes(),
        )
        return grpc.secure_channel(self.address, credentials, CHANNEL_OPTIONS)

    def context(self, caller: str) -> ssl.SSLContext:
        """The same for HTTP/1.1."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if caller in self.certificates:
            self.certificates[caller].configure_cert(context)
        return context


@pytest.fixture
def certified(larder, tmp_path, authority) -> Certified:
    """The server of the table."""
    return Certified(larder, tmp_path, authority)


def prepared(server: Larder) -> Prepared:
    """A token that the control plane is asked about."""
    made = server.token("team")
    return Prepared(made.token.name, made.secret)


def outcomes(certified: Certified) -> dict[str, dict[str, str]]:
    """Calls everything; the same must come of it on both lanes and in JSON."""
    table: dict[str, dict[str, str]] = {}
    asked = requests(prepared(certified.server))
    for caller in CALLERS:
        with certified.channel(caller) as channel:
            for method in contract():
                path = path_of(method)
                request = asked[path]
                metadata = metadata_of(caller, certified.secrets, path)
                cell, shown = by_grpc(channel, method, request, metadata, None)
                # A compressed request takes the other lane.
                again = by_grpc(channel, method, request, metadata, grpc.Compression.Gzip)
                assert again[0] == cell, f"{path} by {caller}"
                if not (method.client_streaming or method.server_streaming):
                    context = certified.context(caller)
                    text = by_json(certified.address, context, method, request, metadata)
                    assert text == cell, f"{path} by {caller}, in JSON"
                if caller in ("other", "admin", "stranger", "prefix out", "space out", "write"):
                    assert SECRET not in shown, f"{path} shows {caller} what is not theirs"
                table.setdefault(path, {})[caller] = cell
    return table


def page(table: dict[str, dict[str, str]]) -> str:
    """The table as it is kept."""
    lines = [
        "# Who may call what",
        "",
        "<!-- Written by clients/python/test_authorization.py with UPDATE_SNAPSHOTS=1, from the",
        "answers of a running server; do not edit. -->",
        "",
        "Each cell is what a call came to: `OK`, or a reason of [errors.md](errors.md); `item:` is",
        "the reason of one item in a reply that is otherwise good. Every caller asks for entries",
        "`mine/…` of the account `team`, in its namespace `default`; what an account sees is its",
        "own. gRPC, compressed gRPC and JSON over HTTP/1.1 gave the same.",
        "",
        "| caller | is |",
        "|---|---|",
        *(f"| {caller} | {meaning} |" for caller, meaning in CALLERS.items()),
        "",
        f"| RPC | {' | '.join(CALLERS)} |",
        f"|---|{'---|' * len(CALLERS)}",
    ]
    for path, cells in table.items():
        lines.append(f"| `{path[1:]}` | {' | '.join(cells[caller] for caller in CALLERS)} |")
    return "\n".join(lines) + "\n"


def test_the_table(certified):
    found = page(outcomes(certified))
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        TABLE.write_text(found)
    assert TABLE.read_text().splitlines() == found.splitlines()


def test_the_same_holds_where_accounts_are_elsewhere(larder, tmp_path):
    there = larder()
    secrets = tokens(there)
    credential = tmp_path / "credential"
    credential.write_text(there.token("default", VERIFY).secret)
    here = larder("--accounts", there.url, "--accounts-token-file", str(credential))
    fill(here, secrets["whole"])
    kept = {}
    for line in TABLE.read_text().splitlines():
        if line.startswith("| `"):
            path, *cells = (cell.strip(" `") for cell in line.strip("|").split("|"))
            kept[f"/{path}"] = dict(zip(CALLERS, cells, strict=True))
    asked = requests(Prepared("", ""))
    with grpc.insecure_channel(here.address, CHANNEL_OPTIONS) as channel:
        for method in contract():
            path = path_of(method)
            if method.containing_service.full_name not in (
                "larder.cache.v1.CacheService",
                "rpc.Cache",
            ):
                continue
            for caller in CALLERS:
                if caller in CERTIFICATES:
                    continue
                metadata = metadata_of(caller, secrets, path)
                cell, _ = by_grpc(channel, method, asked[path], metadata, None)
                assert cell == kept[path][caller], f"{path} by {caller}"
