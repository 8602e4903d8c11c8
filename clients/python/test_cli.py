"""The `larder` command, as scripts use it."""

import json

import pytest

from harness import PATIENCE_S, cache, environment, json_of, larder

DONE, FAILED, USAGE, NOT_FOUND = 0, 1, 2, 3


def check(finished, status: int, stdout: bytes | None = None) -> None:
    """Asserts how a command ended, and what it printed."""
    assert finished.returncode == status, finished.stdout + finished.stderr
    if status != DONE:
        assert finished.stderr, "a failure says nothing"
    if stdout is not None:
        assert finished.stdout == stdout


def test_values_come_back_byte_for_byte(server):
    value = bytes(range(256)) * 100
    check(server.cli("set", "bytes", "-", input=value), DONE)
    check(server.cli("get", "bytes"), DONE, value)
    check(server.cli("set", "word", "con"), DONE)
    assert server.cli("get", "word").stdout.rstrip(b"\n") == b"con"


def test_a_missing_key_is_exit_status_3(server):
    check(server.cli("get", "absent"), NOT_FOUND, b"")
    check(server.cli("del", "absent"), NOT_FOUND)
    check(server.cli("touch", "absent", "--ttl", "1m"), NOT_FOUND)
    assert json.loads(server.cli("get", "absent", "--json").stdout or b"null") is not None


def test_conditions(server):
    check(server.cli("set", "once", "1", "--if-absent"), DONE)
    check(server.cli("set", "once", "2", "--if-absent"), FAILED)
    version = json_of(server.cli("get", "once", "--json"))["version"]
    check(server.cli("set", "once", "3", "--if-version", str(version)), DONE)
    check(server.cli("set", "once", "4", "--if-version", str(version)), FAILED)
    assert server.cli("get", "once").stdout.rstrip(b"\n") == b"3"


def test_delete_touch_and_increment(server):
    check(server.cli("set", "brief", "v", "--ttl", "30s"), DONE)
    assert json_of(server.cli("get", "brief", "--json")).get("expire_time")
    check(server.cli("touch", "brief", "--ttl", "1h"), DONE)
    check(server.cli("del", "brief"), DONE)
    check(server.cli("get", "brief"), NOT_FOUND)
    assert server.cli("incr", "count").stdout.strip() == b"1"
    assert json_of(server.cli("incr", "count", "--json"))["value"] == 2
    check(server.cli("set", "word", "five"), DONE)
    check(server.cli("incr", "word"), FAILED)


def test_a_dry_run_changes_nothing(server):
    check(server.cli("set", "dry", "v", "--dry-run"), DONE)
    check(server.cli("get", "dry"), NOT_FOUND)


def test_keys_dump_and_load(larder):
    old, new = larder(), larder()
    entries = {f"key-{number:04}": f"value {number}" for number in range(1500)}
    for key, value in list(entries.items())[:3]:
        check(old.cli("set", key, value, "--ttl", "1h"), DONE)

    requests = [cache.SetRequest(key=k.encode(), value=v.encode()) for k, v in entries.items()]
    for start in range(3, len(requests), 1000):
        old.cache().BatchSet(cache.BatchSetRequest(requests=requests[start : start + 1000]))

    assert old.cli("keys").stdout.decode().split() == sorted(entries)
    assert old.cli("keys", "key-000").stdout.decode().split() == sorted(entries)[:10]
    dumped = old.cli("dump")
    check(dumped, DONE)
    check(new.cli("load", input=dumped.stdout), DONE)
    assert new.cli("keys").stdout == old.cli("keys").stdout
    assert new.cli("get", "key-1234").stdout == old.cli("get", "key-1234").stdout
    assert json_of(new.cli("get", "key-0000", "--json")).get("expire_time")
    part = old.cli("dump", "key-00")
    check(larder().cli("load", input=part.stdout), DONE)
    check(new.cli("load", input=b"this is no dump\n"), FAILED)


def test_usage(larder):
    server = larder()
    check(server.cli("set", "k", "v" * 35), DONE)
    usage = json_of(server.cli("usage", "--json"))
    assert (usage["key_count"], usage["bytes"]) == (1, 100)
    assert (usage["request_ids"], usage["forgotten_request_ids"]) == (0, 0)
    server.cache().Increment(cache.IncrementRequest(key=b"n", request_id="i"), timeout=PATIENCE_S)
    assert json_of(server.cli("usage", "--json"))["request_ids"] == 1
    assert b"forgotten request ids" in server.cli("usage").stdout


def test_accounts_and_tokens(larder):
    server = larder()
    check(server.cli("account", "create", "shop", "--max-keys", "1", "--max-bytes", "1MiB"), DONE)
    check(server.cli("account", "create", "shop"), FAILED)
    shown = json_of(server.cli("account", "show", "shop", "--json"))
    assert (shown["max_keys"], shown["max_bytes"]) == (1, 1 << 20)
    check(server.cli("account", "show", "nobody"), NOT_FOUND)
    assert b"shop" in server.cli("account", "list").stdout

    made = json_of(server.cli("token", "create", "shop", "--read", "--write", "--json"))
    token = ["--token", made["secret"]]
    check(server.cli("set", "a", "1", *token), DONE)
    over = server.cli("set", "b", "2", *token)
    check(over, FAILED)
    assert b"exceeds max key limit 1" in over.stderr
    check(server.cli("account", "set", "shop", "--max-keys", "2"), DONE)
    check(server.cli("set", "b", "2", *token), DONE)

    readonly = json_of(server.cli("token", "create", "shop", "--read", "--json"))
    check(server.cli("set", "a", "2", "--token", readonly["secret"]), FAILED)
    check(server.cli("get", "a", "--token", readonly["secret"]), DONE)
    listed = server.cli("token", "list", "shop").stdout
    assert made["name"].split("/")[-1].encode() in listed
    assert made["secret"].encode() not in listed
    check(server.cli("token", "revoke", made["name"]), DONE)
    check(server.cli("get", "a", *token), FAILED)
    check(server.cli("account", "delete", "shop"), DONE)
    check(server.cli("account", "show", "shop"), NOT_FOUND)


def test_credentials_may_stand_in_the_environment_or_in_a_file(server, tmp_path):
    secret = server.account("placed")
    check(server.cli("set", "k", "placed", "--token", secret), DONE)
    file = tmp_path / "token"
    file.write_text(secret + "\n")
    variables = environment(LARDER_SERVER=server.url, LARDER_TOKEN=secret)
    assert larder("get", "k", env=variables).stdout.rstrip(b"\n") == b"placed"
    where = ["--server", server.url]
    assert larder("get", "k", *where, "--token-file", file).stdout.rstrip(b"\n") == b"placed"
    check(larder("get", "k", *where, "--token", "wrong"), FAILED)


@pytest.mark.parametrize(
    "arguments",
    [
        ["get"],
        ["set", "k"],
        ["fetch", "k"],
        ["get", "k", "--colour"],
        ["set", "k", "v", "--ttl", "soon"],
        ["set", "k", "v", "--ttl", "-1s"],
        ["set", "k", "v", "--if-absent", "--if-version", "1"],
        ["account", "create", "a", "--max-bytes", "much"],
        ["serve", "--listen", "nowhere"],
        ["get", "k", "--server", "ftp://127.0.0.1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_status_2(arguments):
    check(larder(*arguments), USAGE, b"")


def test_no_command_prints_help():
    done = larder()
    assert b"serve" in done.stdout + done.stderr
    check(larder("--help"), DONE)
    assert larder("--version").stdout.startswith(b"larder ")


def test_nobody_home_is_exit_status_1(server):
    check(larder("get", "k", "--server", "http://127.0.0.1:1", "--timeout", "2s"), FAILED, b"")
    assert server.process.poll() is None


def test_no_colour_where_none_is_wanted(server):
    done = server.cli("usage", env=environment(NO_COLOR="1"))
    assert b"\x1b" not in done.stdout + done.stderr
    check(server.cli("account", "list"), DONE)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_and_manual(shell):
    assert b"larder" in larder("completions", shell).stdout
    assert larder("man").stdout.startswith((b".ie", b".TH"))
