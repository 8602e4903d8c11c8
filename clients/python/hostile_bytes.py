"""Requests that no client library would send, byte for byte, and the exact reply to each."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from harness import bearer, cache
from hostile_messages import BAD, CACHE, KEPT, TALK
from raw import GRPC, JSON, PROTO, WEB, Headers, Reply, frame, http1, http2

OK = ("OK", "")
MALFORMED = (BAD, "MALFORMED_REQUEST")
METADATA = (BAD, "METADATA_INVALID")
NO_METHOD = ("UNIMPLEMENTED", "METHOD_NOT_FOUND")
NO_ENCODING = ("UNIMPLEMENTED", "ENCODING_UNSUPPORTED")
TOO_LARGE = ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
NOBODY = ("UNAUTHENTICATED", "TOKEN_INVALID")

GET = CACHE + "Get"
SET = CACHE + "Set"
DUMP = CACHE + "Dump"
LOAD = CACHE + "Load"
GET_KEPT = cache.GetRequest(key=KEPT).SerializeToString()
JSON_KEPT = b'{"key":"a2VwdA=="}'

Send = Callable[[str, str, str, Headers, bytes], Reply]


class Row(NamedTuple):
    """A request, and what must come back."""

    name: str
    send: Send
    method: str
    path: str
    headers: Headers
    body: bytes
    expected: tuple[str, str]
    # Whether the user's credential is added.
    signed: bool = True


def rows() -> Iterator[Row]:
    """Every row."""
    yield from framing()
    yield from protobuf()
    yield from json_texts()
    yield from compression()
    yield from metadata()
    yield from routes()


def grpc(name: str, body: bytes, expected: tuple[str, str], *more: tuple, path: str = GET) -> Row:
    """A row over gRPC."""
    headers = [("content-type", GRPC), ("te", "trailers"), *more]
    return Row(f"gRPC: {name}", http2, "POST", path, headers, body, expected)


def connect(
    name: str, body: bytes, expected: tuple[str, str], *more: tuple, path: str = GET
) -> Row:
    """A row over Connect with JSON."""
    headers = [("content-type", JSON), *more]
    return Row(f"JSON: {name}", http1, "POST", path, headers, body, expected)


def framing() -> Iterator[Row]:
    """The five bytes before a gRPC message."""
    whole = frame(GET_KEPT)
    for name, body, expected in (
        ("nothing at all", b"", MALFORMED),
        ("one byte", b"\0", MALFORMED),
        ("half a prefix", whole[:3], MALFORMED),
        ("a prefix alone", whole[:5], MALFORMED),
        ("half a message", whole[:-2], MALFORMED),
        ("a message and one byte", whole + b"\0", MALFORMED),
        ("two messages", whole + whole, MALFORMED),
        ("a length that is one too long", frame(GET_KEPT, length=len(GET_KEPT) + 1), MALFORMED),
        ("a length that is one too short", frame(GET_KEPT, length=len(GET_KEPT) - 1), MALFORMED),
        ("a length of 4 GiB", frame(GET_KEPT, length=0xFFFFFFFF), TOO_LARGE),
        ("a length over the limit", frame(GET_KEPT, length=(5 << 20) + 1), TOO_LARGE),
        ("a message over the limit", frame(bytes((5 << 20) + 1)), TOO_LARGE),
        ("an empty message", frame(b""), (BAD, "KEY_EMPTY")),
    ):
        yield grpc(name, body, expected)
    for flags in (2, 4, 0x7F, 0x80, 0xFF):
        yield grpc(f"flags {flags:#x}", frame(GET_KEPT, flags=flags), MALFORMED)
    web = [("content-type", WEB)]
    for name, body in {
        "nothing at all": b"",
        "half a message": whole[:-2],
        "a length that is one too long": frame(GET_KEPT, length=len(GET_KEPT) + 1),
    }.items():
        yield Row(f"gRPC-Web: {name}", http1, "POST", GET, web, body, MALFORMED)
    text = [("content-type", "application/grpc-web-text")]
    yield Row("gRPC-Web: in text", http1, "POST", GET, text, b"AAAAAAA=", NO_ENCODING)


def protobuf() -> Iterator[Row]:
    """Bytes that are no message, and some that only look so."""
    bad = {
        "a field cut short": b"\x12\x05ab",
        "a length of 2 GiB": b"\x12\xff\xff\xff\xff\x07",
        "a number without an end": b"\xff" * 11,
        "field number 0": b"\x02\x00",
        "the end of no group": b"\x0c",
        "a group without an end": b"\x93\x3e",
        "wire type 6": b"\x16\x00",
        "wire type 7": b"\x17\x00",
        "a number for a key": b"\x10\x01",
        "text for a switch": b"\x1a\x01a",
        "half a fixed64": b"\x11\x00\x00\x00",
        "a namespace that is no UTF-8": b"\x0a\x02\xc3\x28" + GET_KEPT,
        "a namespace with a surrogate": b"\x0a\x03\xed\xa0\x80" + GET_KEPT,
        "an overlong slash in the namespace": b"\x0a\x02\xc0\xaf" + GET_KEPT,
    }
    good = {
        "an unknown field": GET_KEPT + b"\xf8\x3e\x01",
        "an unknown message": GET_KEPT + b"\xfa\x3e\x03abc",
        "an unknown group": GET_KEPT + b"\xfb\x3e\xfc\x3e",
        "the key twice, of which the last counts": b"\x12\x00" + GET_KEPT,
        "a switch of 2": GET_KEPT + b"\x18\x02",
    }
    for expected, bodies in ((MALFORMED, bad), (OK, good)):
        for name, body in bodies.items():
            yield grpc(name, frame(body), expected)
            headers = [("content-type", PROTO)]
            yield Row(f"Connect: {name}", http1, "POST", GET, headers, body, expected)
    for name, key in {
        "Latin 1": b"\xfc",
        "UTF-16": b"\xff\xfek\0",
        "half a letter": b"\xe2\x82",
    }.items():
        body = frame(b"\x0a" + bytes([len(key)]) + key)
        for method in ("Store", "Get"):
            yield grpc(
                f"the talk's {method} with a key in {name}", body, MALFORMED, path=TALK + method
            )


def json_texts() -> Iterator[Row]:
    """Texts that are no message."""
    deep = b"[" * 100_000
    for name, body, expected in (
        ("nothing at all", b"", MALFORMED),
        ("a brace", b"{", MALFORMED),
        ("a list", b"[]", MALFORMED),
        ("the fields in a list", b'["default","a2VwdA==",false,false]', MALFORMED),
        ("a text", b'"kept"', MALFORMED),
        ("a number", b"1", MALFORMED),
        ("no JSON", b"key=kept", MALFORMED),
        ("a comma too many", b'{"key":"a2VwdA==",}', MALFORMED),
        ("text after the end", JSON_KEPT + b"x", MALFORMED),
        ("two messages", JSON_KEPT + JSON_KEPT, MALFORMED),
        ("bytes that are no UTF-8", b'{"namespace":"\xc3\x28","key":"a2VwdA=="}', MALFORMED),
        ("UTF-16", JSON_KEPT.decode().encode("utf-16"), MALFORMED),
        ("half a surrogate pair", b'{"namespace":"\\ud800","key":"a2VwdA=="}', MALFORMED),
        ("a key that is a number", b'{"key":1}', MALFORMED),
        ("a key that is a list", b'{"key":["a"]}', MALFORMED),
        ("a key that is no base64", b'{"key":"!!!!"}', MALFORMED),
        ("a key that is base64 cut short", b'{"key":"a"}', MALFORMED),
        ("a namespace that is a number", b'{"namespace":1,"key":"a2VwdA=="}', MALFORMED),
        ("a switch that is a text", b'{"key":"a2VwdA==","noTouch":"yes"}', MALFORMED),
        ("a switch that is a number", b'{"key":"a2VwdA==","noTouch":1}', MALFORMED),
        ("brackets 100,000 deep", b'{"x":' + deep, MALFORMED),
        ("no key", b"{}", (BAD, "KEY_EMPTY")),
        ("a key that is null", b'{"key":null}', (BAD, "KEY_EMPTY")),
        ("an unknown field", b'{"key":"a2VwdA==","colour":{"red":[1]}}', OK),
        ("white space around", b" \t\r\n" + JSON_KEPT + b" \n", OK),
        ("the proto's own names", b'{"key":"a2VwdA==","no_touch":true}', OK),
        ("base64 without padding", b'{"key":"a2VwdA"}', OK),
    ):
        yield connect(name, body, expected)
    for name, ttl in {
        "without a unit": '"5"',
        "that is a number": "5",
        "in minutes": '"5m"',
        "that is not a number": '"NaNs"',
        "without an end": '"Infinitys"',
        "with an exponent": '"1e3s"',
        "of hexadecimal": '"0x5s"',
        "with a space": '"5 s"',
        "empty": '""',
        "that is an object": '{"seconds":5}',
        "with ten decimals": '"1.0123456789s"',
    }.items():
        body = f'{{"key":"a2VwdA==","ttl":{ttl}}}'.encode()
        yield connect(f"a TTL {name}", body, MALFORMED, path=SET)
    for name, delta in {
        "that is a fraction": "1.5",
        "past 64 bits": '"9223372036854775808"',
        "far past 64 bits": "1e400",
        "that is not a number": '"NaN"',
        "that is a word": '"one"',
        "that is a switch": "true",
    }.items():
        body = f'{{"key":"bmV3","delta":{delta}}}'.encode()
        yield connect(f"a delta {name}", body, MALFORMED, path=CACHE + "Increment")
    for name, stamp in {
        "without a date": "12:00:00Z",
        "without a zone": "2100-01-01T00:00:00",
        "of February 30": "2100-02-30T00:00:00Z",
        "that is a word": "tomorrow",
    }.items():
        body = json.dumps({"key": "a2VwdA==", "expireTime": stamp}).encode()
        yield connect(f"an end {name}", body, MALFORMED, path=SET)
    both = b'{"key":"a2VwdA==","ttl":"5s","keepExpireTime":true}'
    yield connect("two of a oneof", both, MALFORMED, path=SET)


def compression() -> Iterator[Row]:
    """Compressed requests."""
    zipped = gzip.compress(GET_KEPT)
    bomb = gzip.compress(bytes(64 << 20))
    gzipped = ("grpc-encoding", "gzip")
    yield grpc("gzip", frame(zipped, flags=1), OK, gzipped)
    yield grpc("gzip declared and not used", frame(GET_KEPT), OK, gzipped)
    yield grpc("compressed without an encoding", frame(zipped, flags=1), MALFORMED)
    identity = ("grpc-encoding", "identity")
    yield grpc("compressed as identity", frame(zipped, flags=1), MALFORMED, identity)
    yield grpc("gzip that is none", frame(b"no gzip", flags=1), MALFORMED, gzipped)
    yield grpc("gzip cut short", frame(zipped[:-6], flags=1), MALFORMED, gzipped)
    yield grpc(
        "zlib under the name of gzip", frame(zlib.compress(GET_KEPT), flags=1), MALFORMED, gzipped
    )
    yield grpc("gzip of 64 MiB", frame(bomb, flags=1), TOO_LARGE, gzipped)
    # What it says of its length is not what it is.
    for length in (0, 100, 2**32 - 1):
        lie = zipped[:-4] + length.to_bytes(4, "little")
        yield grpc(f"gzip that says {length} bytes", frame(lie, flags=1), MALFORMED, gzipped)
    yield grpc("an empty message as gzip", frame(b"", flags=1), (BAD, "KEY_EMPTY"), gzipped)
    yield grpc("more after a gzip", frame(zipped + b"more", flags=1), OK, gzipped)
    for path in (DUMP, LOAD):
        for name, message, expected in (
            ("gzip that is none", b"no gzip", MALFORMED),
            ("gzip cut short", zipped[:-6], MALFORMED),
            ("gzip of 64 MiB", bomb, TOO_LARGE),
        ):
            yield grpc(f"{name}, {path}", frame(message, flags=1), expected, gzipped, path=path)
        bare = frame(zipped, flags=1)
        yield grpc(f"compressed without an encoding, {path}", bare, MALFORMED, path=path)
        other = ("grpc-encoding", "br")
        yield grpc(f"another encoding, {path}", bare, NO_ENCODING, other, path=path)
    for name in ("snappy", "br", "GZIP", "gzip, gzip"):
        headers = ("grpc-encoding", name)
        yield grpc(f"the encoding {name!r}", frame(zipped, flags=1), NO_ENCODING, headers)
    yield connect("gzip", gzip.compress(JSON_KEPT), OK, ("content-encoding", "gzip"))
    yield connect("gzip that is none", JSON_KEPT, MALFORMED, ("content-encoding", "gzip"))
    yield connect("gzip of 64 MiB", bomb, TOO_LARGE, ("content-encoding", "gzip"))
    for name in ("br", "deflate", "snappy"):
        yield connect(f"the encoding {name!r}", JSON_KEPT, NO_ENCODING, ("content-encoding", name))
    large = b'{"key":"' + b"A" * (5 << 20) + b'"}'
    yield connect("a message over the limit", large, TOO_LARGE)


def metadata() -> Iterator[Row]:
    """Credentials, deadlines and dry runs that cannot be understood."""
    whole = frame(GET_KEPT)
    yield grpc("the longest timeout", whole, OK, ("grpc-timeout", "99999999H"))
    for value in (
        "",
        "S",
        "1",
        "1s",
        "1h",
        "123456789S",
        "-1S",
        "+1S",
        "1.5S",
        "1 S",
        "1SS",
        "S1",
        "0x1S",
        "NaNS",
    ):
        yield grpc(f"the timeout {value!r}", whole, METADATA, ("grpc-timeout", value))
    for value in ("", "x", "-1", "1.5", "1s", "12345678901", "0x10", "NaN"):
        yield connect(f"the timeout {value!r}", JSON_KEPT, METADATA, ("connect-timeout-ms", value))
    for value in ("maybe", "", "2", "TRUE", "yes", "on", "01", "1, 1"):
        yield grpc(f"the dry run {value!r}", whole, METADATA, ("dry-run", value))
        yield connect(f"the dry run {value!r}", JSON_KEPT, METADATA, ("dry-run", value))
    plain = {
        "a password": "Basic a2V5OnZhbA==",
        "no token": "Bearer",
        "an empty token": "Bearer ",
        "a token alone": "sesame",
        "two tokens in one": "Bearer open sesame",
        "nothing": "",
    }
    for name, value in plain.items():
        for made in (
            grpc(f"authorization by {name}", whole, METADATA, ("authorization", value)),
            connect(f"authorization by {name}", JSON_KEPT, METADATA, ("authorization", value)),
        ):
            yield made._replace(signed=False)
    odd = ("authorization", "Bearer \xff\xfe".encode("latin-1"))
    yield grpc("authorization beyond ASCII", whole, METADATA, odd)._replace(signed=False)
    for name, token in {
        "unknown": "unknown",
        "long": "t" * 4000,
        "SQL": "'--",
        "a path": "../admin-token",
    }.items():
        shown = bearer(token)[0]
        yield grpc(f"a token that is {name}", whole, NOBODY, shown)._replace(signed=False)
        yield connect(f"a token that is {name}", JSON_KEPT, NOBODY, shown)._replace(signed=False)
    again = bearer("another")[0]
    yield grpc("two authorizations", whole, METADATA, again)
    yield connect("two authorizations", JSON_KEPT, METADATA, again)


def routes() -> Iterator[Row]:
    """Methods, paths and content types that are not served."""
    whole = frame(GET_KEPT)
    for path in (
        "/",
        "//",
        "/larder.cache.v1.CacheService",
        "/larder.cache.v1.CacheService/",
        "/larder.cache.v1.CacheService/get",
        "/larder.cache.v1.CacheService/Get/",
        "/larder.cache.v1.CacheService/Watch",
        "/larder.cache.v2.CacheService/Get",
        "/LARDER.CACHE.V1.CACHESERVICE/GET",
        "/rpc.Cache/Delete",
        "/larder.cache.v1.CacheService/%47et",
        "/../rpc.Cache/Get",
    ):
        yield grpc(f"the path {path!r}", whole, NO_METHOD, path=path)
        yield connect(f"the path {path!r}", JSON_KEPT, NO_METHOD, path=path)
    query = "?connect=v1&encoding=json&message=" + "%7B%22key%22%3A%22a2VwdA%3D%3D%22%7D"
    yield Row("GET of a read", http1, "GET", GET + query, [], b"", OK)
    for method in ("Set", "Delete", "Increment", "DeletePrefix", "GetAndTouch", "BatchSet"):
        yield Row(f"GET of {method}", http1, "GET", CACHE + method + query, [], b"", NO_METHOD)
    for verb in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
        headers = [("content-type", JSON)]
        yield Row(f"{verb} of a read", http1, verb, GET, headers, JSON_KEPT, NO_METHOD)
    for kind in (
        "text/plain",
        "text/html",
        "application/xml",
        "application/x-www-form-urlencoded",
        "",
        "json",
    ):
        headers = [("content-type", kind)]
        yield Row(f"the content type {kind!r}", http1, "POST", GET, headers, JSON_KEPT, NO_METHOD)
    yield Row("no content type", http1, "POST", GET, [], JSON_KEPT, NO_METHOD)
    for kind in ("application/grpc+thrift", "application/grpc+", "application/grpcx"):
        headers = [("content-type", kind), ("te", "trailers")]
        yield Row(f"the content type {kind!r}", http2, "POST", GET, headers, whole, NO_METHOD)
    charset = [("content-type", "application/json; charset=utf-8")]
    yield Row("JSON in UTF-8", http1, "POST", GET, charset, JSON_KEPT, OK)
