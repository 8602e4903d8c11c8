"""What a restart keeps, and what happens while a server ends or reads its configuration again."""

import http.client
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import harness
from harness import PATIENCE_S, bearer, cache, talk
from observed import parse, scrape


def put(server, key: bytes, value: bytes = b"", metadata=(), **fields):
    """Stores an entry, and returns it."""
    request = cache.SetRequest(key=key, value=value, **fields)
    reply = server.cache().Set(request, metadata=metadata, timeout=PATIENCE_S)
    return reply.applied.entry


def get(server, key: bytes, metadata=(), **fields):
    """The entry, or None."""
    request = cache.GetRequest(key=key, **fields)
    reply = server.cache().Get(request, metadata=metadata, timeout=PATIENCE_S)
    return reply.hit if reply.HasField("hit") else None


def wait_for(done, what: str) -> None:
    """Polls until something has happened."""
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def snapshots(server) -> list[Path]:
    """Its whole snapshots, oldest first."""
    return sorted((server.data_dir / "snapshots").glob("*.snapshot"))


def test_a_drain_keeps_everything(larder, tmp_path):
    data = tmp_path / "data"
    first = larder(data_dir=data)
    kept = put(first, b"kept", b"value", namespace="other", flags=7, ttl={"seconds": 3600})
    put(first, b"short", ttl={"nanos": 1_000_000})
    put(first, b"large", bytes(3 << 20))
    team, gone = bearer(first.account("team")), bearer(first.account("gone"))
    put(first, b"k", b"team", metadata=team)
    put(first, b"k", b"gone", metadata=gone)
    first.cli("account", "delete", "gone")
    first.stop()
    assert stat.S_IMODE((data / "snapshots").stat().st_mode) == 0o700

    second = larder(data_dir=data)
    found = get(second, b"kept", namespace="other")
    assert (found.value, found.flags, found.version) == (b"value", 7, kept.version)
    assert abs(found.expire_time.ToMilliseconds() - kept.expire_time.ToMilliseconds()) < 100
    assert get(second, b"short") is None
    assert len(get(second, b"large").value) == 3 << 20
    assert get(second, b"k", metadata=team).value == b"team"
    # The version is as good as before, and the next one above it.
    condition = cache.Precondition(if_version=kept.version)
    later = put(second, b"kept", namespace="other", precondition=condition)
    assert later.version > kept.version
    # An account made anew does not see what the one before had.
    anew = bearer(second.account("gone"))
    assert get(second, b"k", metadata=anew) is None


def test_after_a_crash_the_last_snapshot_counts_and_versions_do_not_go_back(larder, tmp_path):
    data = tmp_path / "data"
    first = larder("--snapshot-interval", "1s", data_dir=data)
    old = put(first, b"k", b"saved")
    before = len(snapshots(first))
    wait_for(lambda: len(snapshots(first)) > before, "no snapshot")
    seen = {path.name for path in snapshots(first)}
    put(first, b"other")
    wait_for(lambda: {path.name for path in snapshots(first)} != seen, "no second snapshot")
    first.process.kill()
    first.process.wait()

    second = larder(data_dir=data)
    found = get(second, b"k")
    assert found.value == b"saved"
    assert found.version > old.version
    second.stop()
    assert "ended without its last snapshot" in second.stderr()

    strict = larder(data_dir=data)
    strict.process.kill()
    strict.process.wait()
    (tmp_path / "larder.toml").write_text("[snapshot]\nload_after_crash = false\n")
    empty = larder("--config", str(tmp_path / "larder.toml"), data_dir=data)
    assert get(empty, b"k") is None


def test_a_damaged_snapshot_is_named_and_the_one_before_is_loaded(larder, tmp_path):
    data = tmp_path / "data"
    for value in [b"one", b"two"]:
        server = larder(data_dir=data)
        put(server, b"k", value)
        server.stop()
    newest = snapshots(server)[-1]
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)
    server = larder(data_dir=data)
    assert get(server, b"k").value == b"one"
    server.stop()
    assert f"{newest.name}" in server.stderr()
    assert "damaged at byte" in server.stderr()
    assert newest.with_suffix(".damaged").exists()


def metric(server, name: str) -> float:
    """A figure of `/metrics` that has no labels."""
    return parse(scrape(server)).value(name)


def test_a_snapshot_is_not_written_again_while_nothing_changes(larder):
    server = larder("--snapshot-interval", "1s", "--admin", "127.0.0.1:0")
    put(server, b"k", b"v")
    put(server, b"short", ttl={"nanos": 500_000_000})
    skips = "larder_snapshot_skips_total"
    wait_for(lambda: metric(server, skips) >= 2, "none was skipped")
    before, told = snapshots(server), "larder_snapshot_last_success_timestamp_seconds"
    # It is as good as new, and the alert for an old one stays quiet.
    assert time.time() - metric(server, told) < 5
    saves = metric(server, "larder_snapshot_saves_total")
    assert get(server, b"k").value == b"v"
    skipped = metric(server, skips)
    wait_for(lambda: metric(server, skips) > skipped, "a read counts as a change")
    assert (metric(server, "larder_snapshot_saves_total"), snapshots(server)) == (saves, before)
    server.cache().Delete(cache.DeleteRequest(key=b"k"), timeout=PATIENCE_S)
    wait_for(lambda: snapshots(server) != before, "a delete was not saved")
    # One that somebody took away is written again.
    gone = snapshots(server)[-1]
    gone.unlink()
    wait_for(gone.exists, "it was not written again")


def test_a_full_disk_costs_the_new_snapshot_and_nothing_else(larder, tmp_path, monkeypatch):
    data = tmp_path / "data"
    first = larder(data_dir=data)
    put(first, b"k", b"small")
    first.stop()
    before = [path.read_bytes() for path in snapshots(first)]

    # No file may be longer than 1 MiB; the program is told by an error, not by a signal.
    limited = tmp_path / "limited"
    program = shlex.quote(str(harness.LARDER))
    limited.write_text(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f 2048\nexec {program} \"$@\"\n")
    limited.chmod(0o755)
    monkeypatch.setattr(harness, "LARDER", limited)
    second = larder("--snapshot-interval", "1s", data_dir=data)
    put(second, b"large", bytes(2 << 20))
    wait_for(lambda: "A SNAPSHOT COULD NOT BE WRITTEN" in second.stderr(), "no error")
    assert get(second, b"k").value == b"small"
    assert [path.read_bytes() for path in snapshots(second)] == before
    second.process.terminate()
    assert second.process.wait(timeout=PATIENCE_S) == 1, "it could not save"
    assert [path.read_bytes() for path in snapshots(second)] == before
    assert not list((data / "snapshots").glob("*.part"))


def test_those_who_watch_its_health_are_told_of_the_drain(larder):
    server = larder()
    channel = server.channel()
    request = health_pb2.HealthCheckRequest(service="")
    states = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=PATIENCE_S)
    assert next(states).status == health_pb2.HealthCheckResponse.SERVING
    server.process.terminate()
    assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert list(states) == [], "the watch ends, and does not hold up the drain"
    assert server.process.wait(timeout=5) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(larder, second):
    server = larder("--drain-grace", "600")
    host, port = server.address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as client:
        # A request whose body does not come: it is in flight for 30 s.
        client.sendall(
            b"POST /larder.cache.v1.CacheService/Get HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n"
        )
        # The server has it, and waits for the body.
        client.settimeout(PATIENCE_S)
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        wait_for(lambda: put(server, b"k") is not None, "no answer")
        server.process.terminate()
        wait_for(lambda: "shutting down" in server.stderr(), "no drain")
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(timeout=0.5)
        server.process.send_signal(second)
        assert server.process.wait(timeout=5) == 1, "nothing was saved"
    assert "told twice" in server.stderr()
    assert snapshots(server) == []


def test_a_reload_is_all_or_nothing(larder, tmp_path):
    file = tmp_path / "larder.toml"
    file.write_text("threads = 1\n")
    server = larder("--config", str(file))

    def reload(content: str, says: str) -> None:
        file.write_text(content)

        def told() -> list[str]:
            return [line for line in server.stderr().splitlines() if "read again" in line]

        before = len(told())
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(told()) > before, "nothing in the log")
        assert says in told()[-1]

    stub = server.talk()
    stub.Store(talk.StoreReq(key="long", val=b"x"), timeout=PATIENCE_S)
    reload("threads = 1\nmax_key_bytes = 2\n", "max_key_bytes changed")
    with pytest.raises(grpc.RpcError) as refused:
        stub.Store(talk.StoreReq(key="long"), timeout=PATIENCE_S)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    reload("threads = 2\nmax_key_bytes = 9\nadmin = '127.0.0.1:0'", "admin, threads")
    reload("threads = 1\nmax_key_bytes = 0\n", "not within 1 to 65536")
    reload("threads = 1\nnonsense\n", "line 2")
    with pytest.raises(grpc.RpcError):
        stub.Store(talk.StoreReq(key="long"), timeout=PATIENCE_S)
    reload("threads = 1\n", "max_key_bytes changed")
    stub.Store(talk.StoreReq(key="long"), timeout=PATIENCE_S)
    reload(f"threads = 1\n[audit]\nfile = '{tmp_path}/none/audit'", "audit.file")
    reload("threads = 1\nmax_memory = '2GiB'\n", "max_memory")
    info = server.cache().GetServerInfo(cache.GetServerInfoRequest(), timeout=PATIENCE_S)
    assert info.limits["max_key_bytes"] == 1024


def test_a_reload_is_audited_as_what_it_came_to(larder, tmp_path):
    file, audit = tmp_path / "larder.toml", tmp_path / "audit"
    settings = f"[audit]\nfile = '{audit}'\n"
    file.write_text(settings)
    server = larder("--config", str(file))

    def outcomes() -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in audit.read_text().splitlines()]
        told = [(line["action"], line["outcome"]) for line in lines]
        return [line for line in told if line[0].startswith("reload")]

    expected = []
    for content, outcome in [
        ("nonsense\n", "INVALID_ARGUMENT"),
        ("log_filter = '=====,,['\n", "INVALID_ARGUMENT"),
        ("threads = 3\n", "INVALID_ARGUMENT"),
        ("max_key_bytes = 9\n", "OK"),
    ]:
        file.write_text(content + settings)
        expected.append(("reload", outcome))
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(outcomes()) >= len(expected), "nothing is audited")
        # Without TLS nothing is said of certificates.
        assert outcomes() == expected, server.stderr()


def test_systemd_is_told(larder, tmp_path, monkeypatch):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(path))
        notified.settimeout(PATIENCE_S)
        monkeypatch.setitem(os.environ, "NOTIFY_SOCKET", str(path))
        server = larder()
        assert notified.recv(1000).startswith(b"READY=1")
        server.process.send_signal(signal.SIGHUP)
        assert b"MONOTONIC_USEC=" in notified.recv(1000)
        assert notified.recv(1000).startswith(b"READY=1")
        server.stop()
        assert notified.recv(1000).startswith(b"STOPPING=1")


def test_origins_and_the_audit_log_change_while_it_runs(larder, tmp_path):
    file, old, new = tmp_path / "larder.toml", tmp_path / "audit", tmp_path / "other"
    file.write_text(f"cors_origin = ['https://a.example']\n[audit]\nfile = '{old}'\n")
    server = larder("--config", str(file))

    def told() -> int:
        return server.stderr().count("configuration was read again")

    def reload() -> None:
        before = told()
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: told() > before, "nothing in the log")

    def may_call(origin: str) -> bool:
        host, port = server.address.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
        headers = {"content-type": "application/json", "origin": origin}
        path = "/larder.cache.v1.CacheService/Get"
        connection.request("POST", path, b'{"key": "aw=="}', headers)
        answer = connection.getresponse()
        told = answer.getheader("access-control-allow-origin")
        connection.close()
        assert (answer.status, told) in [(200, origin), (403, None)]
        return answer.status == 200

    def actions(path: Path) -> list[str]:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line["action"].rsplit("/", 1)[-1] for line in lines]

    server.account("one")
    assert (may_call("https://a.example"), may_call("https://b.example")) == (True, False)
    file.write_text(f"cors_origin = ['https://b.example']\n[audit]\nfile = '{new}'\n")
    reload()
    assert (may_call("https://a.example"), may_call("https://b.example")) == (False, True)
    server.account("two")
    assert "CreateAccount" in actions(old)
    wait_for(lambda: "CreateAccount" in actions(new), "the new file has nothing")
    assert actions(old).count("CreateAccount") == 1
    # A rotation: moved away, and opened anew.
    new.rename(tmp_path / "rotated")
    reload()
    wait_for(new.exists, "it was not opened anew")
    server.account("three")
    assert "CreateAccount" in actions(new)
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
