"""A real Redis, and as much of its protocol as the tests speak."""

import contextlib
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import trustme

from harness import PATIENCE_S, environment

Reply = int | str | bytes | list | None


def free_port() -> int:
    """One that nobody listens on: Redis cannot be told port 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class RedisError(Exception):
    """What Redis answers with a minus."""


class Redis:
    """A `redis-server` without anything on disk, with a listener for TLS beside the other."""

    def __init__(self, authority: trustme.CA, *arguments: str):
        self._temporary = tempfile.TemporaryDirectory()
        home = Path(self._temporary.name)
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(home / "cert")
        issued.private_key_pem.write_to_path(home / "key")
        authority.cert_pem.write_to_path(home / "ca")
        self.ca = home / "ca"
        self.port, self.tls_port = free_port(), free_port()
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "tls-port": str(self.tls_port),
            "tls-cert-file": str(home / "cert"),
            "tls-key-file": str(home / "key"),
            "tls-ca-cert-file": str(home / "ca"),
            "tls-auth-clients": "no",
            "save": "",
            "dir": str(home),
            "unixsocket": str(home / "socket"),
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self._log = (home / "log").open("wb")
        self._process = subprocess.Popen(
            ["redis-server", *options, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment(),
        )
        self.url = f"redis://127.0.0.1:{self.port}"
        self.tls_url = f"rediss://localhost:{self.tls_port}"
        self.socket_url = f"redis+unix://{home / 'socket'}"
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                self._connection = socket.create_connection(("127.0.0.1", self.port))
                break
            assert self._process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < until, "redis-server does not listen"
            time.sleep(0.02)
        self._connection.settimeout(PATIENCE_S)
        self._answers = self._connection.makefile("rb")

    def __call__(self, *words: bytes | str | int) -> Reply:
        """One command."""
        return self.many([words])[0]

    def many(self, commands: list[tuple]) -> list[Reply]:
        """Commands in one pipeline."""
        sent = bytearray()
        for words in commands:
            sent += b"*%d\r\n" % len(words)
            for word in words:
                data = word if isinstance(word, bytes) else str(word).encode()
                sent += b"$%d\r\n%s\r\n" % (len(data), data)
        self._connection.sendall(sent)
        return [self._answer() for _ in commands]

    def _answer(self) -> Reply:
        line = self._answers.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        match kind:
            case b"+":
                return rest.decode()
            case b":":
                return int(rest)
            case b"-":
                raise RedisError(rest.decode())
            case b"$" if rest == b"-1":
                return None
            case b"$":
                return self._answers.read(int(rest) + 2)[:-2]
            case b"*":
                return [self._answer() for _ in range(int(rest))]
        raise AssertionError(f"not RESP2: {line}")

    def stop(self) -> None:
        """Ends it at once."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._temporary.cleanup()
