"""Requests as bytes, over plain sockets: what no well-behaved client would send.

Every reply comes down to a status and a reason of the catalogue, whatever the protocol.
"""

import base64
import dataclasses
import http.client
import json
import socket
import struct
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
from google.rpc import code_pb2, error_details_pb2, status_pb2

# A reply that takes longer is a hang.
LIMIT_S = 10

GRPC = "application/grpc"
JSON = "application/json"
PROTO = "application/proto"
WEB = "application/grpc-web+proto"

Headers = list[tuple[str, str | bytes]]


@dataclasses.dataclass
class Reply:
    """What came back."""

    http: int
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str]

    def outcome(self) -> tuple[str, str]:
        """Status and reason: `("OK", "")`, or as the catalogue has them."""
        kind = self.headers.get("content-type", "")
        if kind.startswith("application/grpc-web"):
            return outcome_of_web(self)
        if kind.startswith(GRPC):
            return outcome_of_grpc(self.headers | self.trailers)
        if self.http == 200:
            return ("OK", "")
        if kind.startswith(JSON):
            return outcome_of_connect(self.body)
        return (f"HTTP {self.http}", "")


def outcome_of_grpc(trailers: dict[str, str]) -> tuple[str, str]:
    """Reads `grpc-status` and `grpc-status-details-bin`."""
    code = code_pb2.Code.Name(int(trailers["grpc-status"]))
    if code == "OK":
        return ("OK", "")
    packed = trailers.get("grpc-status-details-bin")
    if packed is None:
        return (code, "no details")
    status = status_pb2.Status.FromString(unbase64(packed))
    assert code_pb2.Code.Name(status.code) == code, "the details have another status"
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details), "no ErrorInfo"
    assert info.domain == "larder"
    return (code, info.reason)


def outcome_of_connect(body: bytes) -> tuple[str, str]:
    """Reads an error of the Connect protocol."""
    error = json.loads(body)
    code = {"canceled": "CANCELLED"}.get(error["code"], error["code"].upper())
    for detail in error.get("details", []):
        if detail["type"] == "google.rpc.ErrorInfo":
            info = error_details_pb2.ErrorInfo.FromString(unbase64(detail["value"]))
            assert info.domain == "larder"
            return (code, info.reason)
    return (code, "no details")


def outcome_of_web(reply: Reply) -> tuple[str, str]:
    """Reads the trailers of gRPC-Web, which stand in the last frame of the body."""
    trailers = dict(reply.headers)
    for flags, payload in frames_of(reply.body):
        if flags & 0x80:
            for line in payload.decode().split("\r\n"):
                name, _, value = line.partition(":")
                trailers[name.strip().lower()] = value.strip()
    return outcome_of_grpc(trailers)


def frames_of(body: bytes) -> list[tuple[int, bytes]]:
    """Takes the length-prefixed frames of a body apart."""
    frames = []
    while body:
        flags, length = struct.unpack_from(">BI", body)
        frames.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return frames


def unbase64(text: str) -> bytes:
    """Decodes base64 with or without its padding."""
    return base64.b64decode(text + "=" * (-len(text) % 4))


def frame(message: bytes, *, flags: int = 0, length: int | None = None) -> bytes:
    """A gRPC frame; `length` lies about its length."""
    return struct.pack(">BI", flags, len(message) if length is None else length) + message


def http1(address: str, method: str, path: str, headers: Headers, body: bytes) -> Reply:
    """One request of HTTP/1.1; `headers` are sent as they are, and may repeat."""
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=LIMIT_S)
    try:
        given = {name.lower() for name, _ in headers}
        connection.putrequest(method, path, skip_host="host" in given, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if "content-length" not in given:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        headers_back = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, headers_back, response.read(), {})
    finally:
        connection.close()


def http2(address: str, method: str, path: str, headers: Headers, body: bytes) -> Reply:
    """One request of HTTP/2 with prior knowledge, on a connection of its own."""
    host, port = address.rsplit(":", 1)
    # What is sent is not checked: that is the point.
    config = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
    )
    exchange = Exchange(h2.connection.H2Connection(config))
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection:
        exchange.start(connection)
        head = [(":method", method), (":scheme", "http"), (":authority", address), (":path", path)]
        return exchange.ask([*head, *headers], body)


class Exchange:
    """One request and its reply."""

    def __init__(self, protocol: h2.connection.H2Connection):
        self.protocol = protocol
        self.stream = 1
        self.head: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.body = bytearray()
        self.ended = False

    def start(self, connection: socket.socket) -> None:
        """Sends the preface."""
        self.connection = connection
        self.protocol.initiate_connection()
        self.flush()

    def ask(self, headers: Headers, body: bytes) -> Reply:
        """Sends the request as far as the server wants it, and reads the reply."""
        self.protocol.send_headers(self.stream, headers, end_stream=not body)
        self.flush()
        unsent = memoryview(body)
        until = time.monotonic() + LIMIT_S
        while not self.ended:
            unsent = self.send(unsent)
            self.connection.settimeout(max(0.01, until - time.monotonic()))
            received = self.connection.recv(65536)
            if not received:
                raise ConnectionError("the server closed the connection without a reply")
            for event in self.protocol.receive_data(received):
                self.on(event)
            self.flush()
        status = int(self.head.pop(":status", "0"))
        return Reply(status, self.head, bytes(self.body), self.trailers)

    def send(self, unsent: memoryview) -> memoryview:
        """Sends as much of the body as flow control allows."""
        while unsent and not self.ended:
            room = min(
                self.protocol.local_flow_control_window(self.stream),
                self.protocol.max_outbound_frame_size,
            )
            if room == 0:
                break
            part, unsent = unsent[:room], unsent[room:]
            self.protocol.send_data(self.stream, bytes(part), end_stream=not unsent)
        self.flush()
        return unsent

    def on(self, event: h2.events.Event) -> None:
        """Takes in what the server sent."""
        match event:
            case h2.events.ResponseReceived():
                self.head = decoded(event.headers)
            case h2.events.TrailersReceived():
                self.trailers = decoded(event.headers)
            case h2.events.DataReceived():
                self.body += event.data
                self.protocol.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            case h2.events.StreamEnded():
                self.ended = True
            case h2.events.StreamReset() if not self.ended:
                # "No error" after a whole reply: the rest of the request is not wanted.
                if event.error_code != h2.errors.ErrorCodes.NO_ERROR or not self.head:
                    raise ConnectionError(f"the stream was reset: {event.error_code!r}")
                self.ended = True
            case h2.events.ConnectionTerminated():
                raise ConnectionError(f"the connection was ended: {event.error_code!r}")

    def flush(self) -> None:
        """Sends what the protocol has ready."""
        if data := self.protocol.data_to_send():
            self.connection.sendall(data)


def decoded(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as text."""
    return {name.decode(): value.decode() for name, value in headers}
