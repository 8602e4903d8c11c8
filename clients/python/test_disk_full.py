"""A disk without room: nothing is lost, it is told, and it goes on when there is room again.

The disk is a small tmpfs, which takes root and `mount`; without them the tests are skipped.
"""

import contextlib
import os
import subprocess
import urllib.request
import warnings
from pathlib import Path

import grpc
import pytest

from harness import PATIENCE_S, accounts, bearer, cache, refused
from test_restart import get, metric, put, snapshots, wait_for

# Whole pages, as a tmpfs counts.
DISK_BYTES = 8 << 20


@pytest.fixture
def disk(tmp_path) -> Path:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(folder)]
    why = "it takes root"
    if os.geteuid() == 0:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        why = mounted.stderr.strip() if mounted.returncode else ""
    if why:
        warnings.warn(f"NO FULL DISK IS TESTED: no tmpfs can be mounted: {why}", stacklevel=1)
        pytest.skip(f"no tmpfs can be mounted: {why}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    room = os.statvfs(disk).f_bavail
    assert room == 0, f"{room} pages are left"
    return filler


def page(server, path: str) -> str:
    """What the admin listener says."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{server.admin}{path}", timeout=PATIENCE_S) as answer:
        assert answer.status == 200
        return answer.read().decode()


def test_snapshots_fail_aloud_and_go_on_when_there_is_room(disk, larder):
    data = disk / "data"
    first = larder("--snapshot-interval", "1s", "--admin", "127.0.0.1:0", data_dir=data)
    put(first, b"k", b"small")
    wait_for(lambda: snapshots(first), "no snapshot")
    wait_for(lambda: metric(first, "larder_snapshot_skips_total") > 0, "it is not current")
    before = [path.read_bytes() for path in snapshots(first)]
    # Four of them do not fit beside the accounts.
    for number in range(4):
        put(first, b"large-%d" % number, os.urandom(2 << 20))
    wait_for(lambda: metric(first, "larder_snapshot_failing") == 1, "it does not fail")
    assert metric(first, "larder_snapshot_failures_total") > 0
    assert "A SNAPSHOT COULD NOT BE WRITTEN" in first.stderr()
    assert "No space left on device" in first.stderr()
    assert "snapshot could not be written" in page(first, "/healthz")
    assert page(first, "/readyz").startswith("ready"), "calls are answered all the same"
    assert [path.read_bytes() for path in snapshots(first)] == before
    wait_for(lambda: not list((data / "snapshots").glob("*.part")), "half a file stays")
    put(first, b"k", b"later")
    assert get(first, b"k").value == b"later"

    for number in range(4):
        request = cache.DeleteRequest(key=b"large-%d" % number)
        first.cache().Delete(request, timeout=PATIENCE_S)
    wait_for(lambda: metric(first, "larder_snapshot_failing") == 0, "it still fails")
    assert page(first, "/healthz") == "ok\n"
    first.stop()
    second = larder(data_dir=data)
    assert get(second, b"k").value == b"later"


def test_a_full_disk_at_the_end_is_an_exit_status_and_the_snapshot_before_counts(disk, larder):
    data = disk / "data"
    first = larder(data_dir=data)
    put(first, b"k", b"saved")
    first.stop()
    second = larder(data_dir=data)
    put(second, b"k", b"lost")
    filler = fill(disk)
    second.process.terminate()
    assert second.process.wait(timeout=PATIENCE_S) == 1, "it could not save"
    filler.unlink()
    third = larder(data_dir=data)
    assert get(third, b"k").value == b"saved"
    third.stop()
    assert "ended without its last snapshot" in third.stderr()


def test_accounts_stay_as_they_were_and_change_when_there_is_room(disk, larder):
    data = disk / "data"
    server = larder("--admin", "127.0.0.1:0", data_dir=data)
    team = bearer(server.account("team"))
    admin, stub = bearer(server.admin_token), server.control()

    def create(name: str, **fields: object):
        request = accounts.CreateAccountRequest(account_id=name, **fields)
        return stub.CreateAccount(request, metadata=admin, timeout=PATIENCE_S)

    def names() -> set[str]:
        listed = stub.ListAccounts(
            accounts.ListAccountsRequest(), metadata=admin, timeout=PATIENCE_S
        )
        return {account.name.removeprefix("accounts/") for account in listed.accounts}

    filler, made = fill(disk), {"default", "team"}
    # What the file has room for inside is still taken.
    for number in range(200):
        try:
            create(f"more-{number}", account=accounts.Account(display_name="x" * 60))
        except grpc.RpcError:
            break
        made.add(f"more-{number}")
    with refused("UNAVAILABLE", "STORE_UNAVAILABLE") as refusal:
        create("without-room", request_id="once")
    assert "disk may be full" in refusal.error.details()
    assert names() == made
    assert metric(server, "larder_accounts_write_failing") == 1
    assert metric(server, "larder_accounts_write_failures_total") >= 1
    assert "accounts database could not be written" in page(server, "/healthz")
    assert "THE ACCOUNTS DATABASE COULD NOT BE WRITTEN" in server.stderr()
    # Those that are there go on.
    put(server, b"k", b"v", metadata=team)
    assert get(server, b"k", metadata=team).value == b"v"

    filler.unlink()
    assert not create("without-room", request_id="once").replayed, "an error was recorded"
    made.add("without-room")
    assert names() == made
    assert metric(server, "larder_accounts_write_failing") == 0
    assert page(server, "/healthz") == "ok\n"
    server.process.kill()
    server.process.wait()
    server = larder(data_dir=data)
    stub = server.control()
    assert names() == made
    assert get(server, b"k", metadata=team) is None, "it was never saved"
