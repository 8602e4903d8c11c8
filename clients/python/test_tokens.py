"""What a token may do, and what it may not."""

import queue

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from harness import (
    ADMIN,
    PATIENCE_S,
    READ,
    VERIFY,
    WRITE,
    accounts,
    bearer,
    cache,
    entry,
    refused,
    talk,
    talk_grpc,
)

READS = [
    ("Get", cache.GetRequest(key=b"k")),
    ("BatchGet", cache.BatchGetRequest(keys=[b"k"])),
    ("ListKeys", cache.ListKeysRequest()),
    ("Dump", cache.DumpRequest()),
]
WRITES = [
    ("Set", cache.SetRequest(key=b"k")),
    ("Delete", cache.DeleteRequest(key=b"k")),
    ("BatchSet", cache.BatchSetRequest(requests=[cache.SetRequest(key=b"k")])),
    ("BatchDelete", cache.BatchDeleteRequest(keys=[b"k"])),
    ("Touch", cache.TouchRequest(key=b"k", never=True)),
    ("DeletePrefix", cache.DeletePrefixRequest(all=True)),
    ("Increment", cache.IncrementRequest(key=b"n", delta=1)),
]
# Reads the value and changes its expiry.
BOTH = [("GetAndTouch", cache.GetAndTouchRequest(key=b"k", never=True))]


def call(server, method: str, request: object, token: str) -> None:
    """Makes a call of CacheService, reading a stream to its end."""
    reply = getattr(server.cache(), method)(request, metadata=bearer(token), timeout=PATIENCE_S)
    if isinstance(reply, grpc.Call):
        list(reply)


@pytest.fixture(scope="module")
def account(server) -> str:
    """An account with one key."""
    token = server.account("scoped")
    server.cache().Set(cache.SetRequest(key=b"k"), metadata=bearer(token))
    return "scoped"


@pytest.mark.parametrize(
    ("action", "allowed", "denied"),
    [(READ, READS, WRITES + BOTH), (WRITE, WRITES, READS + BOTH)],
    ids=["read", "write"],
)
def test_a_token_for_one_action(server, account, action, allowed, denied):
    token = server.token(account, action).secret
    for method, request in allowed:
        call(server, method, request, token)
    for method, request in denied:
        with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
            call(server, method, request, token)


@pytest.mark.parametrize(("method", "request_"), READS + WRITES + BOTH)
def test_a_token_that_may_neither_read_nor_write(server, account, method, request_):
    token = server.token(account, VERIFY).secret
    with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
        call(server, method, request_, token)


def test_a_token_for_a_prefix(server, account):
    token = server.token(account, key_prefix=b"mine/").secret
    call(server, "Set", cache.SetRequest(key=b"mine/a"), token)
    call(server, "ListKeys", cache.ListKeysRequest(prefix=b"mine/"), token)
    call(server, "Dump", cache.DumpRequest(prefix=b"mine/a"), token)
    for method, request in (
        ("Get", cache.GetRequest(key=b"k")),
        ("Get", cache.GetRequest(key=b"mine")),
        ("Set", cache.SetRequest(key=b"yours/a")),
        ("BatchGet", cache.BatchGetRequest(keys=[b"mine/a", b"k"])),
        ("ListKeys", cache.ListKeysRequest()),
        ("ListKeys", cache.ListKeysRequest(prefix=b"mine")),
        ("Dump", cache.DumpRequest()),
        ("DeletePrefix", cache.DeletePrefixRequest(all=True)),
        ("DeletePrefix", cache.DeletePrefixRequest(prefix=b"m")),
    ):
        with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
            call(server, method, request, token)
    # The talk's calls obey as well.
    stub = server.talk()
    with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
        stub.Store(talk.StoreReq(key="k", account_token=token))
    with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
        list(stub.Dump(talk.DumpReq(account_token=token)))
    assert stub.Get(talk.GetReq(key="mine/a", account_token=token)).val == b""


def test_a_token_for_several_prefixes(server, account):
    made = server.token(account, key_prefix=b"mine/", key_prefixes=[b"ours/"])
    assert (made.token.key_prefix, list(made.token.key_prefixes)) == (b"mine/", [b"ours/"])
    for key in (b"mine/a", b"ours/a"):
        call(server, "Set", cache.SetRequest(key=key), made.secret)
        call(server, "Dump", cache.DumpRequest(prefix=key[:5]), made.secret)
    for request in (cache.ListKeysRequest(), cache.ListKeysRequest(prefix=b"our")):
        with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
            call(server, "ListKeys", request, made.secret)
    # One entry of a batch is refused alone, and says why.
    batch = cache.BatchSetRequest(
        requests=[cache.SetRequest(key=b"ours/b"), cache.SetRequest(key=b"yours/b")]
    )
    reply = server.cache().BatchSet(batch, metadata=bearer(made.secret), timeout=PATIENCE_S)
    assert [result.WhichOneof("result") for result in reply.results] == ["response", "error"]
    with refused("INVALID_ARGUMENT", "FIELD_INVALID") as refusal:
        server.token(account, key_prefixes=[b"ours/"])
    assert refusal.field() == "token.key_prefix"
    with refused("INVALID_ARGUMENT", "FIELD_INVALID") as refusal:
        server.token(account, key_prefix=b"a", key_prefixes=[b"%d" % n for n in range(8)])
    assert refusal.field() == "token.key_prefixes"


def test_a_load_into_a_foreign_namespace_ends_at_once(server, account):
    token = server.token(account, namespaces=["a"]).secret
    part = cache.LoadRequest(namespace="b", entries=[entry.Entry(key=b"k")])
    with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
        list(server.cache().Load(iter([part]), metadata=bearer(token), timeout=PATIENCE_S))


def test_a_token_for_namespaces(server, account):
    token = server.token(account, namespaces=["a", "b"]).secret
    for namespace in ("a", "b"):
        call(server, "Set", cache.SetRequest(namespace=namespace, key=b"k"), token)
    for namespace in ("", "default", "c"):
        with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
            call(server, "Set", cache.SetRequest(namespace=namespace, key=b"k"), token)


def test_a_revoked_token_is_useless_at_once(server, account):
    made = server.token(account)
    call(server, "Get", cache.GetRequest(key=b"k"), made.secret)
    admin = bearer(server.admin_token)
    server.control().RevokeToken(accounts.RevokeTokenRequest(name=made.token.name), metadata=admin)
    with refused("UNAUTHENTICATED", "TOKEN_INVALID"):
        call(server, "Get", cache.GetRequest(key=b"k"), made.secret)
    with refused("NOT_FOUND", "TOKEN_NOT_FOUND"):
        server.control().RevokeToken(
            accounts.RevokeTokenRequest(name=made.token.name), metadata=admin
        )


def test_a_load_ends_when_its_token_is_revoked(server, account):
    made = server.token(account)
    parts = queue.SimpleQueue()
    replies = server.cache().Load(
        iter(parts.get, None), metadata=bearer(made.secret), timeout=PATIENCE_S
    )
    parts.put(cache.LoadRequest(entries=[entry.Entry(key=b"before")]))
    assert next(replies).stored_count == 1
    admin = bearer(server.admin_token)
    server.control().RevokeToken(accounts.RevokeTokenRequest(name=made.token.name), metadata=admin)
    parts.put(cache.LoadRequest(entries=[entry.Entry(key=b"after")]))
    with refused("UNAUTHENTICATED", "TOKEN_INVALID"):
        next(replies)
    parts.put(None)
    after = cache.GetRequest(key=b"after")
    reply = server.cache().Get(after, metadata=bearer(server.token(account).secret))
    assert reply.HasField("miss")


def test_secrets_are_shown_once(server, account):
    made = server.token(account)
    assert len(made.secret) >= 32
    reply = server.control().ListTokens(
        accounts.ListTokensRequest(parent=f"accounts/{account}"),
        metadata=bearer(server.admin_token),
    )
    assert made.token.name in [token.name for token in reply.tokens]
    assert made.secret not in str(reply)


def test_only_administrators_may_administer(server, account):
    request = accounts.ListAccountsRequest()
    control = server.control()
    with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
        control.ListAccounts(request, metadata=bearer(server.token(account).secret))
    with refused("UNAUTHENTICATED", "TOKEN_MISSING"):
        control.ListAccounts(request)
    admin = server.token(account, ADMIN).secret
    names = [a.name for a in control.ListAccounts(request, metadata=bearer(admin)).accounts]
    assert f"accounts/{account}" in names


def test_accounts_live_and_die(server):
    admin = bearer(server.admin_token)
    control = server.control()
    token = server.account("mortal", max_keys=5)
    name = "accounts/mortal"
    read = control.GetAccount(accounts.GetAccountRequest(name=name), metadata=admin).account
    assert (read.name, read.max_keys) == (name, 5)
    changed = control.UpdateAccount(
        accounts.UpdateAccountRequest(
            account=accounts.Account(name=name, max_keys=6, etag=read.etag),
            update_mask=FieldMask(paths=["max_keys"]),
        ),
        metadata=admin,
    ).account
    assert (changed.max_keys, changed.max_bytes) == (6, read.max_bytes)
    assert changed.etag != read.etag
    with refused("ABORTED", "ETAG_MISMATCH"):
        control.UpdateAccount(
            accounts.UpdateAccountRequest(
                account=accounts.Account(name=name, max_keys=7, etag=read.etag),
                update_mask=FieldMask(paths=["max_keys"]),
            ),
            metadata=admin,
        )
    call(server, "Set", cache.SetRequest(key=b"k"), token)
    control.DeleteAccount(accounts.DeleteAccountRequest(name=name), metadata=admin)
    with refused("UNAUTHENTICATED", "TOKEN_INVALID"):
        call(server, "Get", cache.GetRequest(key=b"k"), token)
    # Another account of the same name sees nothing of the first.
    again = server.account("mortal")
    reply = server.cache().Get(cache.GetRequest(key=b"k"), metadata=bearer(again))
    assert reply.HasField("miss")


def test_creating_can_be_validated_only(server):
    admin = bearer(server.admin_token)
    request = accounts.CreateAccountRequest(account_id="unborn", validate_only=True)
    assert server.control().CreateAccount(request, metadata=admin).validated_only
    with refused("NOT_FOUND", "ACCOUNT_NOT_FOUND"):
        server.control().GetAccount(
            accounts.GetAccountRequest(name="accounts/unborn"), metadata=admin
        )


def test_an_expired_token_cannot_be_used(server, account):
    # Made to end within the shortest time that can be waited for.
    moment = Timestamp()
    moment.GetCurrentTime()
    moment.FromMilliseconds(moment.ToMilliseconds() + 500)
    token = server.token(account, expire_time=moment).secret
    with refused("UNAUTHENTICATED", "TOKEN_INVALID"):
        while True:
            call(server, "Get", cache.GetRequest(key=b"k"), token)


def test_cache_servers_verify_tokens_and_others_do_not(server, account):
    token = server.account("verified", max_keys=42)
    stub = talk_grpc.AccountsStub(server.channel())
    request = talk.GetByTokenReq(token=token)
    with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
        stub.GetByToken(request, metadata=bearer(token))
    with refused("UNAUTHENTICATED", "TOKEN_MISSING"):
        stub.GetByToken(request)
    verifier = bearer(server.token(account, VERIFY).secret)
    assert stub.GetByToken(request, metadata=verifier).account.max_cache_keys == 42
    with refused("NOT_FOUND", "TOKEN_NOT_FOUND"):
        stub.GetByToken(talk.GetByTokenReq(token="unknown"), metadata=verifier)
    verified = server.control().VerifyToken(
        accounts.VerifyTokenRequest(secret=token), metadata=verifier
    )
    assert verified.account.name == "accounts/verified"
    assert set(verified.token.actions) == {READ, WRITE}
    assert verified.max_age.ToSeconds() >= 1
