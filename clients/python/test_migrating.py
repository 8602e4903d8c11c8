"""The code of `docs/migrating.md` does what the commands did that it stands for."""

import os
import subprocess
import time

import grpc
import pytest

import migrating
from harness import CHANNEL_OPTIONS, LARDER, PATIENCE_S, cache_grpc, environment
from migrating import Credential
from stubs import ROOT
from test_guides import BLOCK, stands_in

SERVICE_CONFIG = (ROOT / "clients/service-config.json").read_text()
SCRIPT = ROOT / "clients/python/migrating.sh"
PROGRAM = ROOT / "clients/python/migrating.py"


@pytest.fixture
def stub(server, request):
    """A client of an account of its own for each test."""
    token = server.account(request.node.name.replace("_", "-")[:60])
    with grpc.insecure_channel(server.address, CHANNEL_OPTIONS) as channel:
        yield cache_grpc.CacheServiceStub(grpc.intercept_channel(channel, Credential(token)))


def test_strings(stub):
    assert migrating.get(stub, b"k") is None
    migrating.setex(stub, b"k", 0.5 + 3600, b"v")
    assert migrating.get(stub, b"k") == b"v"
    assert 3590 < migrating.ttl(stub, b"k", time.time()) <= 3601
    assert migrating.ttl(stub, b"none", time.time()) is None
    assert migrating.set_nx(stub, b"k", b"other", 60) is False
    assert migrating.set_nx(stub, b"new", b"first", 60) is True
    assert migrating.mget(stub, [b"new", b"none", b"k"]) == [b"first", None, b"v"]
    assert migrating.getdel(stub, b"k") == b"v"
    assert migrating.getdel(stub, b"k") is None


def test_many_large_values_come_in_several_replies(stub):
    keys = [b"large-%d" % number for number in range(4)]
    for key in keys:
        migrating.setex(stub, key, 60, key[-1:] * (2 << 20))
    assert migrating.mget(stub, keys) == [key[-1:] * (2 << 20) for key in keys]


def test_counters(stub):
    assert [migrating.incr(stub, b"hits"), migrating.incr(stub, b"hits", 4)] == [1, 5]
    assert migrating.ttl(stub, b"hits", time.time()) == float("inf")
    assert migrating.decr_memcached(stub, b"hits", 3) == 2
    assert migrating.decr_memcached(stub, b"hits", 3) == 0
    assert [migrating.allow(stub, b"rate", 2, 60) for _ in range(4)] == [True, True, False, False]
    assert 0 < migrating.ttl(stub, b"rate", time.time()) <= 61


def test_a_value_is_changed_by_its_version(stub):
    def add(cart: dict) -> dict:
        # Another writer is between the reading and the writing, once.
        if not interrupted:
            interrupted.append(True)
            migrating.update(stub, b"cart", lambda cart: cart | {"pear": 1})
        return cart | {"apple": cart.get("apple", 0) + 1}

    interrupted: list[bool] = []
    assert migrating.update(stub, b"cart", add) == {"apple": 1, "pear": 1}
    assert migrating.update(stub, b"cart", add) == {"apple": 2, "pear": 1}


def test_keys_are_walked_and_flushed(stub):
    for number in range(1500):
        migrating.incr(stub, b"key-%04d" % number)
    migrating.incr(stub, b"other")
    expected = [b"key-%04d" % number for number in range(1500)]
    assert list(migrating.scan(stub, b"key-")) == expected
    assert migrating.flush(stub) == 1501
    assert list(migrating.scan(stub, b"")) == []


def test_what_is_asked_for_moves(stub):
    old = {b"k": b"old", b"changed": b"old"}.get
    assert migrating.read_through(stub, b"none", old) is None
    assert migrating.read_through(stub, b"k", old) == b"old"
    assert migrating.get(stub, b"k") == b"old"
    migrating.setex(stub, b"changed", 60, b"new")
    assert migrating.read_through(stub, b"changed", old) == b"new"


def test_a_client_shows_its_token(server):
    token = server.account("connected")
    stub = migrating.connect(server.address, token, SERVICE_CONFIG)
    migrating.setex(stub, b"k", 60, b"v")
    assert migrating.get(stub, b"k") == b"v"
    stranger = migrating.connect(server.address, "lrd_nobody", SERVICE_CONFIG)
    with pytest.raises(grpc.RpcError) as refused:
        migrating.get(stranger, b"k")
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_lines_of_the_shell(server):
    lines = SCRIPT.read_text().splitlines()
    [export] = [line for line in lines if line.startswith("export ")]
    lines.remove(export)
    names = [word.partition("=")[0] for word in export.split()[1:]]
    assert names == ["LARDER_SERVER", "LARDER_TOKEN"]
    there = environment(
        LARDER_SERVER=server.url,
        LARDER_TOKEN=server.account("shell"),
        PATH=f"{LARDER.parent}{os.pathsep}{os.environ['PATH']}",
    )
    done = subprocess.run(
        ["sh", "-eux"],
        input="\n".join(lines).encode(),
        capture_output=True,
        timeout=PATIENCE_S,
        env=there,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"gopher" in done.stdout
    assert done.stderr.count(b"+ larder ") == 12


def test_the_page_shows_only_code_that_is_tested():
    text = (ROOT / "docs/migrating.md").read_text()
    files = [path.read_text().splitlines() for path in (PROGRAM, SCRIPT)]
    # `console` shows `larder import`, which has tests of its own.
    blocks = [body for kind, body in BLOCK.findall(text) if kind in ("python", "sh")]
    assert len(blocks) >= 8
    for block in blocks:
        lines = block.rstrip("\n").split("\n")
        assert any(stands_in(lines, file) for file in files), f"in no file:\n{block}"


def test_every_function_is_on_the_page():
    text = (ROOT / "docs/migrating.md").read_text()
    shown = {name for name in vars(migrating) if f"def {name}(" in text}
    private = {"connect", "seconds"}
    functions = {
        name
        for name, value in vars(migrating).items()
        if getattr(value, "__module__", "") == "migrating" and not isinstance(value, type)
    }
    assert functions - shown - private == set()
