"""larder in front of another Accounts server: one that knows only the talk's contract."""

import socket
import threading
import time
from concurrent import futures

import grpc
import pytest

from harness import PATIENCE_S, refused, talk, talk_grpc
from harness import larder as command


class Accounts(talk_grpc.AccountsServicer):
    """The talk's Accounts server. While it is shut it answers nobody; it notes who asked."""

    def __init__(self, limits: dict[str, int]):
        self.limits = limits
        self.asked: list[str] = []
        self.left_s: float | None = None
        self.arrived = threading.Event()
        self.ended = threading.Event()
        self._changed = threading.Condition()
        self._is_open = True

    def shut(self) -> None:
        """Leaves every question open from now on."""
        self._is_open = False

    def open(self) -> None:
        """Answers, also the questions that wait."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def _hung_up(self) -> None:
        self.ended.set()
        with self._changed:
            self._changed.notify_all()

    def GetByToken(self, request, context):  # noqa: N802
        """Reads the account that a token belongs to."""
        self.asked.append(request.token)
        self.left_s = context.time_remaining()
        if not context.add_callback(self._hung_up):
            self._hung_up()
        self.arrived.set()
        with self._changed:
            self._changed.wait_for(lambda: self._is_open or not context.is_active(), PATIENCE_S)
        if request.token not in self.limits:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such token")
        account = talk.Account(max_cache_keys=self.limits[request.token])
        return talk.GetByTokenResp(account=account)


@pytest.fixture
def accounts():
    """A running Accounts server, and its URL."""
    service = Accounts({"inconshreveable": 2, "another one": 2})
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    talk_grpc.add_AccountsServicer_to_server(service, server)
    service.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield service
    service.open()
    server.stop(grace=None).wait(PATIENCE_S)


def test_its_limits_hold(larder, accounts):
    cache = larder("--accounts", accounts.url).talk()

    def store(key: str, token: str = "inconshreveable") -> None:
        cache.Store(talk.StoreReq(key=key, val=b"con", account_token=token))

    for key in ("gopher", "ferris", "gopher"):
        store(key)
    with refused("FAILED_PRECONDITION", "KEY_QUOTA_EXCEEDED") as refusal:
        store("duke")
    assert refusal.message.endswith("exceeds max key limit 2")
    # Accounts are apart, although the Accounts server gives them no names.
    store("duke", token="another one")
    with refused("NOT_FOUND", "KEY_NOT_FOUND"):
        cache.Get(talk.GetReq(key="gopher", account_token="another one"))
    with refused("UNAUTHENTICATED", "TOKEN_INVALID"):
        store("gopher", token="unknown")
    with refused("UNAUTHENTICATED", "TOKEN_MISSING"):
        cache.Get(talk.GetReq(key="gopher"))
    # An answer is kept for a while.
    assert accounts.asked.count("inconshreveable") == 1


def test_calls_that_wait_for_one_token_share_one_question(larder, accounts):
    cache = larder("--accounts", accounts.url).talk()
    accounts.shut()
    requests = [talk.StoreReq(key="k", account_token="inconshreveable") for _ in range(20)]
    calls = [cache.Store.future(request, timeout=PATIENCE_S) for request in requests]
    # All of them have arrived once a later call of the same connection was answered.
    with refused("UNAUTHENTICATED", "TOKEN_MISSING"):
        cache.Get(talk.GetReq(key="k"))
    accounts.open()
    for call in calls:
        assert call.result(PATIENCE_S) == talk.StoreResp()
    assert accounts.asked.count("inconshreveable") == 1


def test_the_callers_deadline_holds_and_travels(larder, accounts):
    cache = larder("--accounts", accounts.url).talk()
    accounts.shut()
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as raised:
        cache.Store(talk.StoreReq(key="k", account_token="inconshreveable"), timeout=0.5)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < PATIENCE_S / 2
    assert accounts.ended.wait(PATIENCE_S), "the question goes on without its caller"
    assert accounts.left_s is not None
    assert accounts.left_s <= 0.5
    # Nothing was stored.
    accounts.open()
    with refused("NOT_FOUND", "KEY_NOT_FOUND"):
        cache.Get(talk.GetReq(key="k", account_token="inconshreveable"), timeout=PATIENCE_S)


def test_a_caller_that_hangs_up_ends_the_question(larder, accounts):
    cache = larder("--accounts", accounts.url).talk()
    accounts.shut()
    call = cache.Store.future(talk.StoreReq(key="k", account_token="inconshreveable"))
    assert accounts.arrived.wait(PATIENCE_S)
    assert not accounts.ended.is_set()
    call.cancel()
    assert accounts.ended.wait(PATIENCE_S), "the question goes on without its caller"


def test_a_millisecond_is_honoured_as_a_deadline(larder, accounts):
    cache = larder("--accounts", accounts.url).talk()
    accounts.shut()
    with pytest.raises(grpc.RpcError) as raised:
        cache.Store(talk.StoreReq(key="k", account_token="inconshreveable"), timeout=0.001)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_without_a_deadline_the_question_ends_after_the_talks_two_seconds(larder, accounts):
    cache = larder("--accounts", accounts.url).talk()
    accounts.shut()
    with refused("UNAVAILABLE", "ACCOUNTS_UNAVAILABLE"):
        cache.Store(talk.StoreReq(key="k", account_token="inconshreveable"), timeout=PATIENCE_S)
    assert accounts.left_s is not None
    assert accounts.left_s <= 2


def test_nobody_home_is_unavailable(larder, accounts):
    # A port that was free a moment ago, and where nobody listens.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    cache = larder("--accounts", f"http://127.0.0.1:{port}").talk()
    with refused("UNAVAILABLE", "ACCOUNTS_UNAVAILABLE"):
        cache.Store(talk.StoreReq(key="k", account_token="inconshreveable"), timeout=PATIENCE_S)
    assert accounts.asked == []


@pytest.fixture
def encrypted(authority):
    """An Accounts server that wants certificates; it notes whose it saw."""
    service = Accounts({"inconshreveable": 2, "another one": 2, "a third": 2})
    service.seen = []
    ask = service.GetByToken

    def get_by_token(request, context):
        names = context.auth_context()["x509_subject_alternative_name"]
        service.seen.append([name.decode() for name in names])
        return ask(request, context)

    service.GetByToken = get_by_token
    issued = authority.issue_cert("127.0.0.1", "localhost")
    credentials = grpc.ssl_server_credentials(
        [(issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )

    def serve(address: str = "127.0.0.1:0"):
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        talk_grpc.add_AccountsServicer_to_server(service, server)
        service.port = server.add_secure_port(address, credentials)
        server.start()
        return server

    service.server = serve()

    def restart() -> None:
        service.server.stop(grace=None).wait(PATIENCE_S)
        service.server = serve(f"127.0.0.1:{service.port}")

    service.restart = restart
    yield service
    service.server.stop(grace=None).wait(PATIENCE_S)


def test_it_is_shown_a_certificate_and_the_new_one_when_the_files_change(
    larder, encrypted, authority, tmp_path
):
    ca, cert, key = (tmp_path / name for name in ("ca", "cert", "key"))
    authority.cert_pem.write_to_path(ca)

    def issue(name: str) -> None:
        issued = authority.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)

    issue("one.example")
    files = ["--accounts-ca", str(ca), "--accounts-cert", str(cert), "--accounts-key", str(key)]
    url = f"https://127.0.0.1:{encrypted.port}"
    server = larder("--accounts", url, *files)

    def store(token: str) -> None:
        request = talk.StoreReq(key="gopher", account_token=token)
        server.talk().Store(request, timeout=PATIENCE_S)

    store("inconshreveable")
    assert encrypted.seen[-1] == ["one.example"]
    issue("two.example")
    encrypted.restart()
    # The one question that meets the end of the old connection may fail.
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            store("another one")
            break
        except grpc.RpcError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    assert encrypted.seen[-1] == ["two.example"]

    # Without one it is not talked to.
    bare = larder("--accounts", url, "--accounts-ca", str(ca))
    with refused("UNAVAILABLE", "ACCOUNTS_UNAVAILABLE"):
        request = talk.StoreReq(key="gopher", account_token="a third")
        bare.talk().Store(request, timeout=PATIENCE_S)


def test_a_certificate_that_cannot_be_used_is_named_at_start(tmp_path):
    files = []
    for name in ("accounts-ca", "accounts-cert", "accounts-key"):
        (tmp_path / name).write_text("nothing")
        files += [f"--{name}", str(tmp_path / name)]
    url, data = "https://127.0.0.1:1", ["--data-dir", str(tmp_path / "data")]
    listen = ["--listen", "127.0.0.1:0"]
    done = command("serve", *listen, *data, "--accounts", url, *files)
    assert done.returncode == 1
    assert b"accounts_cert" in done.stderr
    assert str(tmp_path / "accounts-cert").encode() in done.stderr
    done = command("serve", *listen, *data, "--accounts", url, *files[:4])
    assert done.returncode == 2
