"""How a server starts, refuses to start, and ends."""

import signal
import socket
import stat
import subprocess

import grpc
import pytest

from harness import LARDER, PATIENCE_S, Larder, cache, environment, refused, talk, talk_grpc


def fails(*arguments: str, status: int = 1) -> str:
    """Asserts that `larder serve` does not start, and returns what it says."""
    finished = subprocess.run(
        [LARDER, "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment(),
    )
    assert finished.returncode == status, finished.stdout + finished.stderr
    assert "listening on" not in finished.stdout
    assert "panicked" not in finished.stderr
    return finished.stderr


def test_it_says_what_it_does(larder):
    server = larder()
    server.stop()  # The log is written by a thread of its own, to its end at the latest.
    assert "calls without a token are served as account default" in server.stderr()
    assert "admin-token" in server.stderr()
    assert stat.S_IMODE((server.data_dir / "admin-token").stat().st_mode) == 0o600


def test_every_listener_is_named(larder, tmp_path):
    path = tmp_path / "larder.sock"
    server = larder("--listen", "127.0.0.1:0", "--listen", f"unix:{path}", listeners=3)
    tcp = [address for address in server.addresses if "unix" not in address]
    assert len(set(tcp)) == 2
    # This client names the path as :authority, which is none for HTTP.
    channel = grpc.insecure_channel(f"unix:{path}")
    talk_grpc.CacheStub(channel).Store(talk.StoreReq(key="k"), timeout=PATIENCE_S)
    channel.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_calls_in_flight_end_well(larder, number):
    server = larder()
    stub = server.talk()
    stub.Store(talk.StoreReq(key="first"))
    calls = [stub.Store.future(talk.StoreReq(key=f"{i}", val=bytes(1000))) for i in range(500)]
    calls[0].result(PATIENCE_S)
    server.process.send_signal(number)
    served = 0
    for call in calls:
        try:
            call.result(PATIENCE_S)
            served += 1
        except grpc.RpcError as error:
            # Refused, never cut off half-way.
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error  # noqa: PT017
    assert served >= 1
    assert server.process.wait(PATIENCE_S) == 0, server.stderr()


def test_a_dump_that_nobody_reads_does_not_hold_it_up_for_ever(larder, tmp_path):
    file = tmp_path / "larder.toml"
    file.write_text("drain_grace_seconds = 1\n")
    server = larder("--config", str(file))
    stub = server.talk()
    for number in range(64):
        stub.Store(talk.StoreReq(key=f"{number}", val=bytes(1 << 20)))
    stream = stub.Dump(talk.DumpReq())
    next(stream)
    server.process.terminate()
    assert server.process.wait(PATIENCE_S) == 0, server.stderr()


def test_accounts_outlive_a_restart(larder, tmp_path):
    first = larder(data_dir=tmp_path / "data")
    token = first.account("kept", max_keys=1)
    admin = first.admin_token
    first.stop()
    second = larder(data_dir=tmp_path / "data")
    assert second.admin_token == admin
    stub = second.talk()
    stub.Store(talk.StoreReq(key="a", account_token=token))
    with refused("FAILED_PRECONDITION", "KEY_QUOTA_EXCEEDED"):
        stub.Store(talk.StoreReq(key="b", account_token=token))


def test_two_servers_cannot_share_a_data_directory(larder):
    server = larder()
    said = fails("--listen", "127.0.0.1:0", "--data-dir", str(server.data_dir))
    assert str(server.data_dir) in said


def test_a_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = fails("--listen", address, "--data-dir", str(tmp_path))
    assert address in said


def test_certificates_that_cannot_be_used(tmp_path, authority):
    issued = authority.issue_cert("127.0.0.1")
    cert, key, junk = tmp_path / "cert", tmp_path / "key", tmp_path / "junk"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    junk.write_text("no certificate\n")
    missing = tmp_path / "missing"
    base = ["--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")]
    for culprit, arguments in (
        (missing, ["--tls-cert", str(missing), "--tls-key", str(key)]),
        (missing, ["--tls-cert", str(cert), "--tls-key", str(missing)]),
        (junk, ["--tls-cert", str(junk), "--tls-key", str(key)]),
        (junk, ["--tls-cert", str(cert), "--tls-key", str(junk)]),
        (junk, ["--tls-cert", str(cert), "--tls-key", str(key), "--client-ca", str(junk)]),
    ):
        assert str(culprit) in fails(*base, *arguments)
    assert "tls" in fails(*base, "--tls-cert", str(cert), status=2)


@pytest.mark.parametrize(
    ("content", "line", "key"),
    [
        ("threads = 1\nmax_memory = 'much'\n", 2, "max_memory"),
        ("thread = 1\n", 1, "thread"),
        ("threads = 1\n\nthreads = 2\n", 3, "threads"),
        ("listen = 5051\n", 1, "listen"),
        ("threads =\n", 1, "threads"),
        ("max_key_bytes = -1\n", 1, "max_key_bytes"),
    ],
)
def test_a_malformed_configuration_file(tmp_path, content, line, key):
    file = tmp_path / "larder.toml"
    file.write_text(content)
    said = fails("--config", str(file), "--data-dir", str(tmp_path / "data"))
    assert str(file) in said
    assert f"line {line}" in said
    assert key in said


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("threads = 0\n", "threads"),
        ("max_memory = '1KiB'\n", "max_memory"),
        ("listen = ['0.0.0.0:0']\n", "listen"),
        ("anonymous = 'No Name'\n", "anonymous"),
        ("cors_origin = ['example.com']\n", "cors_origin"),
        ("client_ca = 'ca'\n", "client_ca"),
        ("accounts = 'http://accounts.example:5052'\n", "accounts"),
    ],
)
def test_settings_that_cannot_be(tmp_path, content, key):
    file = tmp_path / "larder.toml"
    file.write_text(content)
    said = fails("--config", str(file), "--data-dir", str(tmp_path / "data"))
    assert key in said


def test_limits_can_be_configured(tmp_path):
    file = tmp_path / "larder.toml"
    file.write_text("max_key_bytes = 100\nmax_batch_keys = 7\n")
    server = Larder("--config", str(file))
    try:
        limits = server.cache().GetServerInfo(cache.GetServerInfoRequest()).limits
        assert (limits["max_key_bytes"], limits["max_batch_keys"]) == (100, 7)
        with refused("INVALID_ARGUMENT", "KEY_TOO_LONG"):
            server.talk().Store(talk.StoreReq(key="k" * 101))
        server.stop()
    finally:
        server.kill()


def test_a_configuration_file_that_is_not_there(tmp_path):
    missing = tmp_path / "larder.toml"
    assert str(missing) in fails("--config", str(missing))
