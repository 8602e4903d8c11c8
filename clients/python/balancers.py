"""nginx, HAProxy and Envoy with the files of `deploy/`, before two servers, all over TLS.

Of a file only addresses and paths are exchanged for those of the test. A program that is not
installed is skipped; `LARDER_BALANCERS=nginx,haproxy,envoy` names those that must be there.
"""

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import (
    CHANNEL_OPTIONS,
    PATIENCE_S,
    Larder,
    accounts,
    accounts_grpc,
    bearer,
    cache,
    cache_grpc,
    environment,
)
from stubs import ROOT

SERVICE_CONFIG = (ROOT / "clients/service-config.json").read_text()

# The name in the certificates of the servers, as the files of `deploy/` want it.
INTERNAL = "larder.internal"

# So many that none of two servers is left without one.
TOKENS = 32


@dataclasses.dataclass(frozen=True)
class Kind:
    """A balancer: its file, and how it is started."""

    name: str
    file: str
    # What stands in the file for the address that it listens on, with a place for the port.
    listen: tuple[str, str]
    # The same of its servers.
    server: str
    folder: str
    # Makes the command from the folder that the file was written to.
    command: Callable[[Path], list[str | Path]]


def nginx(folder: Path) -> list[str | Path]:
    """The file is one of `conf.d`: this stands around it."""
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    around = folder / "nginx.conf"
    around.write_text(
        f"daemon off; pid {folder}/pid; worker_processes 2; error_log stderr;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; {temporary} include {folder}/larder.conf; }}\n"
    )
    return ["nginx", "-e", "stderr", "-p", folder, "-c", around]


KINDS = [
    Kind(
        "nginx",
        "nginx/larder.conf",
        ("listen 443 ssl", "listen 127.0.0.1:{} ssl"),
        "10.0.0.1{}:5051",
        "/etc/nginx/tls",
        nginx,
    ),
    Kind(
        "haproxy",
        "haproxy/haproxy.cfg",
        ("bind :443 ", "bind 127.0.0.1:{} "),
        "10.0.0.1{}:5051",
        "/etc/haproxy/tls",
        lambda folder: ["haproxy", "-db", "-f", folder / "haproxy.cfg"],
    ),
    Kind(
        "envoy",
        "envoy/envoy.yaml",
        ("address: 0.0.0.0, port_value: 443", "address: 127.0.0.1, port_value: {}"),
        "address: 10.0.0.1{}, port_value: 5051",
        "/etc/envoy/tls",
        lambda folder: [
            "envoy",
            "-c",
            folder / "envoy.yaml",
            "--concurrency",
            "2",
            "--log-level",
            "warning",
            "--disable-hot-restart",
        ],
    ),
]


def free_port() -> int:
    """One that nobody listens on. Those in the middle cannot be told port 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Node:
    """A larder server over TLS that keeps its port and its data when it is started again."""

    def __init__(self, folder: Path, authority: trustme.CA):
        folder.mkdir()
        self._folder = folder
        self._authority = authority
        issued = authority.issue_cert(INTERNAL, "localhost")
        issued.cert_chain_pems[0].write_to_path(folder / "cert")
        issued.private_key_pem.write_to_path(folder / "key")
        # It sheds no load: the machine of a test may have other things to do.
        (folder / "larder.toml").write_text("[admission]\nlate_ms = 0\n")
        self.port = free_port()
        self.start()
        self._make_account()

    def start(self) -> None:
        """Starts it, and returns when it serves."""
        self.larder = Larder(
            *("--config", str(self._folder / "larder.toml")),
            *("--listen", f"127.0.0.1:{self.port}", "--anonymous", "default"),
            *("--tls-cert", str(self._folder / "cert"), "--tls-key", str(self._folder / "key")),
            data_dir=self._folder / "data",
            listeners=2,
        )

    def _channel(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self._authority.cert_pem.bytes())
        name = ("grpc.ssl_target_name_override", INTERNAL)
        # At its own port: nobody is between.
        return grpc.secure_channel(
            self.larder.address,
            credentials,
            [*CHANNEL_OPTIONS, name, ("grpc.default_authority", "localhost")],
        )

    def _make_account(self) -> None:
        with self._channel() as channel:
            control = accounts_grpc.AccountServiceStub(channel)
            metadata = bearer(self.larder.admin_token)
            control.CreateAccount(
                accounts.CreateAccountRequest(
                    account_id="edge", account=accounts.Account(max_keys=100_000, max_bytes=1 << 30)
                ),
                metadata=metadata,
                timeout=PATIENCE_S,
            )
            for number in range(TOKENS):
                token = accounts.Token(actions=[accounts.ACTION_READ, accounts.ACTION_WRITE])
                control.CreateToken(
                    accounts.CreateTokenRequest(
                        parent="accounts/edge", token=token, secret=secret(number)
                    ),
                    metadata=metadata,
                    timeout=PATIENCE_S,
                )

    @contextlib.contextmanager
    def direct(self):
        """A client of this server alone."""
        with self._channel() as channel:
            yield cache_grpc.CacheServiceStub(channel)

    def end(self) -> None:
        """Ends it as a rolling restart does."""
        self.larder.process.terminate()
        assert self.larder.process.wait(timeout=PATIENCE_S) == 0, self.larder.stderr()
        self.larder.kill()

    def die(self) -> None:
        """Ends it with no chance to say a word."""
        self.larder.process.kill()
        self.larder.process.wait()


def secret(number: int) -> str:
    """One of the tokens of the account `edge`, which both servers know."""
    return f"lrd_the-same-secret-at-either-server-of-the-pair-{number:02}"


class Pair:
    """Two servers, and a balancer before them."""

    def __init__(self, kind: Kind, folder: Path, authority: trustme.CA):
        self.kind = kind
        self.authority = authority
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.nodes = [Node(folder / f"node-{number}", authority) for number in (1, 2)]
            for node in self.nodes:
                stack.callback(lambda node=node: node.larder.kill())
            self.port = free_port()
            self._log = folder / "log"
            self._process = self._start(self._write(folder), stack)
            self.address = f"localhost:{self.port}"
            self._wait()
            self._stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_: object):
        self._stack.close()

    def _write(self, folder: Path) -> Path:
        """The file of `deploy/`, with other addresses and paths."""
        tls = folder / "tls"
        tls.mkdir()
        front = self.authority.issue_cert("localhost", "cache.example.com")
        front.cert_chain_pems[0].write_to_path(tls / "cache.crt")
        front.private_key_pem.write_to_path(tls / "cache.key")
        front.private_key_and_cert_chain_pem.write_to_path(tls / "cache.pem")
        self.authority.cert_pem.write_to_path(tls / "larder-ca.crt")
        source = ROOT / "deploy" / self.kind.file
        text = source.read_text()
        listen, here = self.kind.listen
        exchanged = [(listen, here.format(self.port)), (self.kind.folder, str(tls))]
        for number, node in enumerate(self.nodes, start=1):
            before = self.kind.server.format(number)
            after = before.replace(f"10.0.0.1{number}", "127.0.0.1")
            exchanged.append((before, after.replace("5051", str(node.port))))
        for before, after in exchanged:
            assert before in text, f"{source} has no {before}"
            text = text.replace(before, after)
        (folder / source.name).write_text(text)
        return folder

    def _start(self, folder: Path, stack: contextlib.ExitStack) -> subprocess.Popen:
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [str(word) for word in self.kind.command(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        return process

    def log(self) -> str:
        """What the balancer wrote."""
        return self._log.read_text(errors="replace")

    def _wait(self) -> None:
        """Returns when every token is served."""
        until = time.monotonic() + PATIENCE_S
        with self.channel() as channel:
            while not self._serves_all(channel):
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < until, self.log()
                time.sleep(0.05)

    @staticmethod
    def _serves_all(channel: grpc.Channel) -> bool:
        health = health_pb2_grpc.HealthStub(channel)
        try:
            for number in range(TOKENS):
                health.Check(
                    health_pb2.HealthCheckRequest(),
                    metadata=bearer(secret(number)),
                    timeout=PATIENCE_S,
                )
        except grpc.RpcError:
            return False
        return True

    def channel(self, *, retries: bool = False) -> grpc.Channel:
        """A stock client of the balancer; with `retries` as the service configuration says."""
        options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        if retries:
            options.append(("grpc.service_config", SERVICE_CONFIG))
        else:
            options.append(("grpc.enable_retries", 0))
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes())
        return grpc.secure_channel(self.address, credentials, options)


class Callers:
    """Threads that ask one after the other, until they are told to end."""

    def __init__(self, pair: Pair, ask: Callable, count: int = 4):
        self.calls = [0] * count
        self.errors: list[grpc.RpcError] = []
        self._ended = threading.Event()
        self._pair = pair
        self._threads = [
            threading.Thread(target=self._run, args=(ask, number)) for number in range(count)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object):
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _run(self, ask: Callable, number: int) -> None:
        with self._pair.channel(retries=True) as channel:
            stub = cache_grpc.CacheServiceStub(channel)
            while not self._ended.is_set():
                try:
                    ask(stub, self.calls[number] % TOKENS)
                    self.calls[number] += 1
                except grpc.RpcError as error:
                    self.errors.append(error)

    def wait_for_more(self, more: int = TOKENS) -> None:
        """Returns when each caller had so many answers more, or an error."""
        wanted = [count + more for count in self.calls]
        until = time.monotonic() + PATIENCE_S
        while any(count < want for count, want in zip(self.calls, wanted, strict=True)):
            if self.errors:
                return
            assert time.monotonic() < until, f"no answers\n{self._pair.log()}"
            time.sleep(0.01)


def installed() -> list:
    """Parameters of the tests: a balancer each, skipped if it is not there."""
    required = os.environ.get("LARDER_BALANCERS", "").split(",")
    return [
        pytest.param(
            kind,
            id=kind.name,
            marks=[]
            if kind.name in required or shutil.which(kind.name)
            else pytest.mark.skip(reason=f"not installed: {kind.name}"),
        )
        for kind in KINDS
    ]


def wait_for(done, what: str) -> None:
    """Polls until something has happened."""
    until = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def hits(node) -> int:
    """Reads of the account that a server has answered since its start."""
    with node.direct() as stub:
        metadata = bearer(secret(0))
        return stub.GetUsage(
            cache.GetUsageRequest(), metadata=metadata, timeout=PATIENCE_S
        ).hit_count


def wait_until_asked(node, callers) -> None:
    """Returns when the balancer sends calls to a server, or one has failed."""
    before = hits(node)
    wait_for(lambda: callers.errors or hits(node) > before, "nobody asks the one that is back")
