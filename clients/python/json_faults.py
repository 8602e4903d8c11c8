"""The faulty server of `faults.py` for clients without gRPC: the same keys, in JSON over HTTP."""

import base64
import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc

from faults import FAULTS, REQUESTS, SERVICE, Faults
from harness import PATIENCE_S

# The HTTP statuses that the Connect protocol gives these errors.
STATUSES = {
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
}


class JsonFaults:
    """The proxy. It notes attempts where `faults` does, numbered as they come.

    Clients that repeat calls by hand do not say which attempt it is.
    """

    def __init__(self, address: str, faults: Faults):
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                """Answers one request."""
                body = self.rfile.read(int(self.headers["content-length"]))
                service, _, method = self.path.removeprefix("/").partition("/")
                if service != SERVICE or method not in REQUESTS:
                    self.answer(404, {"code": "unimplemented"})
                    return
                key = base64.b64decode(json.loads(body)["key"])
                with lock:
                    attempts = faults.attempts[method, key]
                    attempts.append(len(attempts))
                    code, times = FAULTS.get(key, (None, 0))
                    is_faulty = len(attempts) <= times
                if is_faulty:
                    why = f"fault {len(attempts)} of {times}, as {key.decode()} asks for"
                    self.answer(STATUSES[code], {"code": code.name.lower(), "message": why})
                else:
                    self.forward(body)

            def forward(self, body: bytes):
                """Has larder itself answer."""
                behind = http.client.HTTPConnection(address, timeout=PATIENCE_S)
                behind.request("POST", self.path, body, {"content-type": "application/json"})
                reply = behind.getresponse()
                self.answer(reply.status, json.loads(reply.read()))
                behind.close()

            def answer(self, status: int, reply: dict):
                """Writes an answer."""
                body = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object):
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Ends it at once."""
        self._server.shutdown()
        self._server.server_close()
