"""Requests that must be refused exactly so, and must change nothing.

None may be answered with INTERNAL, or not at all; after each the server still serves, and after
all of them it holds exactly what it held.
"""

import contextlib
import dataclasses
import hashlib

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

import hostile_bytes
import hostile_messages
from harness import Larder, accounts, bearer, cache
from hostile_messages import KEPT
from raw import GRPC, JSON, PROTO, WEB, frame, http1, http2


@dataclasses.dataclass
class Target:
    """A server, with accounts that every row leaves as they are."""

    server: Larder
    secrets: dict[str, str]

    def headers(self, who: str) -> list[tuple[str, str]]:
        """The credential of somebody; of nobody, if there is no name."""
        return list(bearer(self.secrets[who])) if who else []

    def content(self) -> dict[str, str]:
        """What every account holds, with versions and expiry, as a digest."""
        stub = self.server.cache()
        digests = {}
        for who in ("user", "full"):
            parts = stub.Dump(cache.DumpRequest(), metadata=self.headers(who))
            entries = sorted(e.SerializeToString() for part in parts for e in part.entries)
            digests[who] = hashlib.sha256(b"".join(entries)).hexdigest()
        control = self.server.control()
        admin = self.headers("admin")
        known = control.ListAccounts(accounts.ListAccountsRequest(), metadata=admin)
        digests["accounts"] = str(known)
        for account in known.accounts:
            request = accounts.ListTokensRequest(parent=account.name)
            digests[account.name] = str(control.ListTokens(request, metadata=admin))
        return digests


@pytest.fixture(scope="module")
def target():
    """The server of all rows; it must hold in the end what it held in the beginning."""
    server = Larder()
    try:
        target = prepare(server)
        before = target.content()
        yield target
        assert target.content() == before
        server.stop()
    finally:
        server.kill()


def prepare(server: Larder) -> Target:
    """Makes accounts, tokens and entries."""
    secrets = {
        "user": server.account("user"),
        "full": server.account("full", max_keys=1, max_bytes=1000),
        "admin": server.admin_token,
    }
    server.token("user", secret="taken-secret")
    revoked = server.token("user")
    request = accounts.RevokeTokenRequest(name=revoked.token.name)
    server.control().RevokeToken(request, metadata=bearer(server.admin_token))
    secrets["revoked"] = revoked.secret
    secrets["expired"] = expired_token(server)
    stub = server.cache()
    for key, value in (
        (KEPT, b"a word"),
        (b"most", b"%d" % (2**63 - 1)),
        (b"least", b"%d" % -(2**63)),
    ):
        stub.Set(cache.SetRequest(key=key, value=value), metadata=bearer(secrets["user"]))
    stub.Set(cache.SetRequest(key=b"a"), metadata=bearer(secrets["full"]))
    return Target(server, secrets)


def expired_token(server: Larder) -> str:
    """A token whose time is up: it is used until it is refused."""
    end = Timestamp()
    end.GetCurrentTime()
    end.FromMilliseconds(end.ToMilliseconds() + 200)
    secret = server.token("user", expire_time=end).secret
    stub = server.cache()
    with contextlib.suppress(grpc.RpcError):
        while True:
            stub.Get(cache.GetRequest(key=KEPT), metadata=bearer(secret))
    return secret


def check(target: Target, send, method, path, headers, body, expected) -> None:
    """Asserts the exact outcome of a request, and that the server still serves."""
    reply = send(target.server.address, method, path, headers, body)
    assert reply.outcome() == expected, reply
    alive = [("content-type", JSON), *target.headers("user")]
    still = http1(target.server.address, "POST", hostile_bytes.GET, alive, hostile_bytes.JSON_KEPT)
    assert still.outcome() == ("OK", "")


# Which protocols carry a message, and how.
CARRIERS = {
    "grpc": (http2, GRPC, lambda message: frame(message.SerializeToString())),
    "grpc-web": (http1, WEB, lambda message: frame(message.SerializeToString())),
    "connect": (http1, PROTO, lambda message: message.SerializeToString()),
    "json": (http1, JSON, lambda message: json_format.MessageToJson(message).encode()),
    "grpc-web over HTTP/2": (http2, WEB, lambda message: frame(message.SerializeToString())),
    "connect over HTTP/2": (http2, PROTO, lambda message: message.SerializeToString()),
    "json over HTTP/2": (http2, JSON, lambda m: json_format.MessageToJson(m).encode()),
    "grpc on the general lane": (http2, GRPC, lambda m: frame(m.SerializeToString())),
}
# No message uses the encoding: it only leads the call to the lane.
GENERAL_LANE = [("te", "trailers"), ("grpc-encoding", "gzip")]


def carried():
    """Every message in every protocol that has a form for it."""
    for row in hostile_messages.rows():
        for carrier, (_, _, encode) in CARRIERS.items():
            # JSON has none for a time past the year 9999.
            with contextlib.suppress(ValueError, json_format.Error):
                encode(row.message)
                yield pytest.param(row, carrier, id=f"{row.name}, {carrier}")


@pytest.mark.parametrize(("row", "carrier"), list(carried()))
def test_messages(target, row, carrier):
    send, kind, encode = CARRIERS[carrier]
    headers = [("content-type", kind), *target.headers(row.who)]
    if carrier == "grpc on the general lane":
        headers += GENERAL_LANE
    check(target, send, "POST", row.path, headers, encode(row.message), (row.code, row.reason))


def named(rows):
    """Parameters with the names of their rows."""
    return [pytest.param(row, id=row.name) for row in rows]


@pytest.mark.parametrize("row", named(hostile_messages.streams()))
def test_streams(target, row):
    headers = [("content-type", GRPC), ("te", "trailers"), *target.headers(row.who)]
    body = frame(row.message.SerializeToString())
    check(target, http2, "POST", row.path, headers, body, (row.code, row.reason))


@pytest.mark.parametrize("row", named(hostile_bytes.rows()))
def test_bytes(target, row):
    headers = [*row.headers, *(target.headers("user") if row.signed else [])]
    check(target, row.send, row.method, row.path, headers, row.body, row.expected)
