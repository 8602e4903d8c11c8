"""Starts the programs under test, and says what is expected of them.

LARDER_BIN names the `larder` to test; by default it is the one that `cargo build` makes.
"""

import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import stubs

stubs.generate()

import channelz_pb2 as channelz  # noqa: E402
import channelz_pb2_grpc as channelz_grpc  # noqa: E402
import rpc_pb2 as talk  # noqa: E402
import rpc_pb2_grpc as talk_grpc  # noqa: E402
from larder.accounts.v1 import account_service_pb2 as accounts  # noqa: E402
from larder.accounts.v1 import account_service_pb2_grpc as accounts_grpc  # noqa: E402
from larder.cache.v1 import cache_service_pb2 as cache  # noqa: E402
from larder.cache.v1 import cache_service_pb2_grpc as cache_grpc  # noqa: E402
from larder.cache.v1 import entry_pb2 as entry  # noqa: E402
from opentelemetry.proto.collector.trace.v1 import (  # noqa: E402
    trace_service_pb2 as collector,
)
from opentelemetry.proto.collector.trace.v1 import (  # noqa: E402
    trace_service_pb2_grpc as collector_grpc,
)

__all__ = [
    "accounts",
    "accounts_grpc",
    "cache",
    "cache_grpc",
    "channelz",
    "channelz_grpc",
    "collector",
    "collector_grpc",
    "entry",
    "talk",
    "talk_grpc",
]

LARDER = Path(os.environ.get("LARDER_BIN", stubs.ROOT / "target/debug/larder")).resolve()

# Bounds every wait; nothing waits that long unless it is broken.
PATIENCE_S = 30

# As any client generated from the contract would be, but for the environment's proxies.
CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0)]

READ, WRITE = accounts.ACTION_READ, accounts.ACTION_WRITE
ADMIN, VERIFY = accounts.ACTION_ADMIN, accounts.ACTION_VERIFY


def environment(**more: str) -> dict[str, str]:
    """The environment without what would point larder at another server, or at a proxy."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LARDER_") and not name.lower().endswith("_proxy")
    }
    return kept | more


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Metadata that shows a credential."""
    return (("authorization", f"Bearer {token}"),)


class Larder:
    """A `larder serve` on a free port, with a data directory of its own."""

    def __init__(
        self,
        *arguments: str,
        data_dir: Path | None = None,
        listeners: int = 1,
        log: str = "",
    ):
        self._temporary = tempfile.TemporaryDirectory()
        self.home = Path(self._temporary.name)
        self.data_dir = data_dir or self.home / "data"
        self._stderr_path = self.home / "stderr"
        command = [LARDER, "serve", "--listen", "127.0.0.1:0", "--data-dir", self.data_dir]
        with self._stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(HOME=str(self.home), **({"LARDER_LOG": log} if log else {})),
            )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.addresses = [self._told("listening on ") for _ in range(listeners)]
            self.admin = self._told("admin on ") if "--admin" in arguments else None
        except BaseException:
            self.kill()
            raise
        self.address = self.addresses[0]
        self._channels: list[grpc.Channel] = []

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _told(self, what: str) -> str:
        """Waits for the next line that says `what`, as `listening on ADDRESS`."""
        while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
            if line.startswith(what):
                return line.removeprefix(what)
        raise AssertionError(f"larder did not listen:\n{self.stderr()}")

    @property
    def url(self) -> str:
        """Where clear-text clients find it."""
        return f"http://{self.address}"

    @property
    def admin_token(self) -> str:
        """The administrator's token, which the first start made."""
        return (self.data_dir / "admin-token").read_text().strip()

    def stderr(self) -> str:
        """What it wrote to its standard error so far."""
        return self._stderr_path.read_text(errors="replace")

    def rss_bytes(self) -> int:
        """Memory that it holds now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process has no VmRSS")

    def channel(self, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
        """A channel of its own, closed with the server."""
        if credentials is None:
            channel = grpc.insecure_channel(self.address, CHANNEL_OPTIONS)
        else:
            channel = grpc.secure_channel(self.address, credentials, CHANNEL_OPTIONS)
        self._channels.append(channel)
        return channel

    def talk(self) -> talk_grpc.CacheStub:
        """A client of the talk's Cache."""
        return talk_grpc.CacheStub(self.channel())

    def cache(self) -> cache_grpc.CacheServiceStub:
        """A client of larder.cache.v1."""
        return cache_grpc.CacheServiceStub(self.channel())

    def control(self) -> accounts_grpc.AccountServiceStub:
        """A client of larder.accounts.v1."""
        return accounts_grpc.AccountServiceStub(self.channel())

    def account(self, name: str, **fields: object) -> str:
        """Makes an account, and a token that may read and write in it."""
        limits = {"max_keys": 1_000_000, "max_bytes": 1 << 30} | fields
        self.control().CreateAccount(
            accounts.CreateAccountRequest(account_id=name, account=accounts.Account(**limits)),
            metadata=bearer(self.admin_token),
            timeout=PATIENCE_S,
        )
        return self.token(name).secret

    def token(
        self, account: str, *actions: int, secret: str = "", **fields: object
    ) -> accounts.CreateTokenResponse:
        """Makes a token; it may read and write if no action is named."""
        return self.control().CreateToken(
            accounts.CreateTokenRequest(
                parent=f"accounts/{account}",
                token=accounts.Token(actions=actions or [READ, WRITE], **fields),
                secret=secret,
            ),
            metadata=bearer(self.admin_token),
            timeout=PATIENCE_S,
        )

    def cli(self, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess:
        """Runs `larder`, as the administrator unless a token is among the arguments."""
        server = ["--server", self.url]
        if "--token" not in arguments:
            server += ["--token-file", str(self.data_dir / "admin-token")]
        return larder(*arguments, *server, **options)

    def stop(self) -> None:
        """Asks it to end; it must then end with exit status 0."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        self.process.terminate()
        status = self.process.wait(timeout=PATIENCE_S)
        assert status == 0, f"ended with {status}:\n{self.stderr()}"

    def kill(self) -> None:
        """Ends it at once, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._temporary.cleanup()


def larder(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess:
    """Runs a `larder` command to its end."""
    settings = {"capture_output": True, "timeout": PATIENCE_S, "env": environment()} | options
    return subprocess.run([LARDER, *arguments], **settings)


def json_of(finished: subprocess.CompletedProcess) -> object:
    """What a successful command with `--json` wrote."""
    assert finished.returncode == 0, finished.stderr.decode()
    return json.loads(finished.stdout)


def details(error: grpc.RpcError) -> list:
    """The typed details of an error, from grpc-status-details-bin."""
    status = rpc_status.from_call(error)
    assert status is not None, f"{error} carries no details"
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.QuotaFailure,
        error_details_pb2.RetryInfo,
        error_details_pb2.PreconditionFailure,
    )
    found = []
    for packed in status.details:
        kind = next(kind for kind in kinds if packed.Is(kind.DESCRIPTOR))
        message = kind()
        packed.Unpack(message)
        found.append(message)
    return found


def detail(error: grpc.RpcError, kind: type) -> object:
    """The one detail of a kind."""
    [found] = [message for message in details(error) if isinstance(message, kind)]
    return found


class Refusal:
    """The error of a refused call, once it has been refused."""

    error: grpc.RpcError

    @property
    def message(self) -> str:
        """The message for people."""
        return self.error.details()

    def field(self) -> str:
        """The field that BadRequest names."""
        [violation] = detail(self.error, error_details_pb2.BadRequest).field_violations
        return violation.field


@contextlib.contextmanager
def refused(code: str, reason: str) -> Iterator[Refusal]:
    """Asserts that the call inside fails with this status and this reason of the catalogue."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as raised:
        yield refusal
    refusal.error = raised.value
    assert refusal.error.code().name == code, refusal.error
    info = detail(refusal.error, error_details_pb2.ErrorInfo)
    assert (info.domain, info.reason) == ("larder", reason), refusal.error
    assert info.metadata["temporary"] in ("true", "false")
