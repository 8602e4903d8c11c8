"""The talk's contract and its whole story, from a stock Python client."""

import grpc
import pytest
from google.rpc import error_details_pb2

from harness import PATIENCE_S, bearer, detail, refused, talk, talk_grpc
from harness import cache as v1

TOKEN = "inconshreveable"


def test_a_missing_key_is_not_found(server):
    with refused("NOT_FOUND", "KEY_NOT_FOUND") as refusal:
        server.talk().Get(talk.GetReq(key="nothing"))
    assert refusal.message == "Key not found nothing"


def test_store_replaces_and_get_reads(server):
    cache = server.talk()
    for value in (b"con", b"phercon", b"", bytes(range(256))):
        cache.Store(talk.StoreReq(key="gopher", val=value))
        assert cache.Get(talk.GetReq(key="gopher")).val == value


@pytest.mark.parametrize("where", ["metadata", "request"])
def test_a_token_may_stand_in_the_metadata_or_in_the_request(server, where):
    token = server.account(f"place-{where}")
    in_request = {"account_token": token} if where == "request" else {}
    options = {"metadata": bearer(token)} if where == "metadata" else {}
    cache = server.talk()
    cache.Store(talk.StoreReq(key="mine", val=b"v", **in_request), **options)
    assert cache.Get(talk.GetReq(key="mine", **in_request), **options).val == b"v"
    dumped = [item.key for item in cache.Dump(talk.DumpReq(**in_request), **options)]
    assert dumped == ["mine"]
    with refused("NOT_FOUND", "KEY_NOT_FOUND"):
        cache.Get(talk.GetReq(key="mine"))


def test_the_metadata_goes_before_the_request(server):
    ours, theirs = server.account("before"), server.account("behind")
    cache = server.talk()
    cache.Store(talk.StoreReq(key="k", val=b"v", account_token=theirs), metadata=bearer(ours))
    assert cache.Get(talk.GetReq(key="k", account_token=ours)).val == b"v"
    with refused("NOT_FOUND", "KEY_NOT_FOUND"):
        cache.Get(talk.GetReq(key="k", account_token=theirs))


def test_new_keys_stop_at_the_limit_and_overwriting_is_free(server):
    token = server.account("limited", max_keys=3)
    cache = server.talk()

    def store(key: str) -> None:
        cache.Store(talk.StoreReq(key=key, val=b"v", account_token=token))

    for key in ("a", "b", "c", "a", "b", "c"):
        store(key)
    with refused("FAILED_PRECONDITION", "KEY_QUOTA_EXCEEDED") as refusal:
        store("d")
    assert refusal.message == "Account limited exceeds max key limit 3"
    info = detail(refusal.error, error_details_pb2.ErrorInfo)
    assert (info.domain, info.metadata["temporary"]) == ("larder", "false")
    [violation] = detail(refusal.error, error_details_pb2.QuotaFailure).violations
    assert "limited" in violation.subject
    store("a")


def test_bytes_stop_at_their_limit_too(server):
    token = server.account("narrow", max_bytes=1000)
    cache = server.talk()
    # Key, value and 64 more: 1 + 100 + 64 = 165, six times.
    for key in "abcdef":
        cache.Store(talk.StoreReq(key=key, val=b"v" * 100, account_token=token))
    with refused("FAILED_PRECONDITION", "BYTE_QUOTA_EXCEEDED"):
        cache.Store(talk.StoreReq(key="g", val=b"v" * 100, account_token=token))
    with refused("FAILED_PRECONDITION", "BYTE_QUOTA_EXCEEDED"):
        cache.Store(talk.StoreReq(key="a", val=b"v" * 111, account_token=token))
    cache.Store(talk.StoreReq(key="a", val=b"v" * 110, account_token=token))


@pytest.mark.parametrize(
    ("value", "dry"), [("1", True), ("true", True), ("0", False), ("false", False)]
)
def test_dry_run(server, value, dry):
    cache = server.talk()
    key = f"dry-{value}"
    stored, call = cache.Store.with_call(
        talk.StoreReq(key=key, val=b"v"), metadata=(("dry-run", value),)
    )
    assert stored == talk.StoreResp()
    echoed = [*call.initial_metadata(), *call.trailing_metadata()]
    assert (("dry-run", "1") in [(k, v) for k, v in echoed]) == dry
    if dry:
        with refused("NOT_FOUND", "KEY_NOT_FOUND"):
            cache.Get(talk.GetReq(key=key))
    else:
        assert cache.Get(talk.GetReq(key=key)).val == b"v"


def test_a_dry_run_makes_every_check(server):
    token = server.account("dry-checks", max_keys=1)
    cache = server.talk()
    cache.Store(talk.StoreReq(key="a", account_token=token))
    dry = (("dry-run", "1"),)
    with refused("FAILED_PRECONDITION", "KEY_QUOTA_EXCEEDED"):
        cache.Store(talk.StoreReq(key="b", account_token=token), metadata=dry)
    with refused("INVALID_ARGUMENT", "KEY_EMPTY"):
        cache.Store(talk.StoreReq(account_token=token), metadata=dry)
    with refused("UNAUTHENTICATED", "TOKEN_INVALID"):
        cache.Store(talk.StoreReq(key="a", account_token="unknown"), metadata=dry)
    with refused("INVALID_ARGUMENT", "METADATA_INVALID"):
        cache.Store(talk.StoreReq(key="a"), metadata=(("dry-run", "maybe"),))


def test_the_talks_own_arrangement(larder):
    """Stores under the token, then gets without any."""
    server = larder("--shared-keyspace", "--anonymous", "default")
    secret = server.home / "secret"
    secret.write_text(TOKEN)
    for command in (
        ("account", "create", "shreve", "--max-keys", "2"),
        ("token", "create", "shreve", "--secret-file", secret),
    ):
        finished = server.cli(*command)
        assert finished.returncode == 0, finished.stderr.decode()

    cache = server.talk()
    cache.Store(talk.StoreReq(key="gopher", val=b"con", account_token=TOKEN), timeout=1)
    assert cache.Get(talk.GetReq(key="gopher"), timeout=1).val == b"con"
    assert [(i.key, i.val) for i in cache.Dump(talk.DumpReq())] == [("gopher", b"con")]
    cache.Store(talk.StoreReq(key="second", account_token=TOKEN))
    with refused("FAILED_PRECONDITION", "KEY_QUOTA_EXCEEDED") as refusal:
        cache.Store(talk.StoreReq(key="third", account_token=TOKEN))
    assert refusal.message == "Account shreve exceeds max key limit 2"


def test_no_account_without_a_token_where_nobody_is_anonymous(larder, authority, tmp_path):
    cert = authority.issue_cert("127.0.0.1")
    cert.private_key_pem.write_to_path(tmp_path / "key")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    server = larder("--tls-cert", str(tmp_path / "cert"), "--tls-key", str(tmp_path / "key"))
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    cache = talk_grpc.CacheStub(server.channel(credentials))
    with refused("UNAUTHENTICATED", "TOKEN_MISSING"):
        cache.Get(talk.GetReq(key="k"))
    with refused("NOT_FOUND", "KEY_NOT_FOUND"):
        cache.Get(talk.GetReq(key="k"), metadata=bearer(server.admin_token))


def test_dump_streams_100_000_entries_in_bounded_memory(larder):
    server = larder()
    cache = server.talk()
    entries, value = 100_000, b"v" * 512
    store_all(server, {f"key-{number}": value for number in range(entries)})
    before = server.rss_bytes()
    seen = set()
    peak = 0
    for item in cache.Dump(talk.DumpReq(), timeout=PATIENCE_S * 2):
        assert item.val == value
        seen.add(item.key)
        if len(seen) % 10_000 == 0:
            peak = max(peak, server.rss_bytes())
    assert seen == {f"key-{number}" for number in range(entries)}
    # The reply that holds everything would take 50 MB and more.
    assert peak - before < 24 << 20, f"grew by {peak - before} bytes during the dump"


def store_all(server, entries: dict[str, bytes]) -> None:
    """Stores entries in batches."""
    stub = server.cache()
    keys = list(entries)
    for start in range(0, len(keys), 1000):
        part = keys[start : start + 1000]
        requests = [v1.SetRequest(key=key.encode(), value=entries[key]) for key in part]
        reply = stub.BatchSet(v1.BatchSetRequest(requests=requests))
        assert all(result.HasField("response") for result in reply.results)


def test_dump_leaves_out_and_counts_keys_that_are_no_text(server):
    token = server.account("bytes-for-keys")
    for key in (b"text", b"\xff\x00", b"\xc3\x28"):
        server.cache().Set(v1.SetRequest(key=key), metadata=bearer(token))
    call = server.talk().Dump(talk.DumpReq(account_token=token))
    assert [item.key for item in call] == ["text"]
    assert dict(call.trailing_metadata())["larder-skipped"] == "2"
