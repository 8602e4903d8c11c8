"""Well-formed requests that must be refused: a method, its message, and the exact refusal.

Each is sent in every protocol that can carry it.
"""

from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from harness import accounts, cache, entry, talk

CACHE = "/larder.cache.v1.CacheService/"
CONTROL = "/larder.accounts.v1.AccountService/"
TALK = "/rpc.Cache/"
TALK_ACCOUNTS = "/rpc.Accounts/"

BAD = "INVALID_ARGUMENT"
TEN_YEARS_S = 10 * 365 * 24 * 3600

# A key that is there, and may not be changed by any of this.
KEPT = b"kept"
LONG_KEY = b"k" * 1025
LARGE_VALUE = bytes((3 << 20) + 1)


class Row(NamedTuple):
    """A request, and what must come back."""

    name: str
    path: str
    message: Message
    code: str
    reason: str
    # Whose credential is shown: "" for nobody's.
    who: str = "user"


BAD_NAMESPACES = {
    "of 65 bytes": "n" * 65,
    "in upper case": "Default",
    "with a space": "a b",
    "with a slash": "a/b",
    "with NUL": "a\0b",
    "in Greek": "αβγ",
    "beginning with a dot": ".a",
    "beginning with a dash": "-a",
    "beginning with an underscore": "_a",
    "ending with a line feed": "a\n",
}
BAD_TTLS = {
    "of nothing": Duration(),
    "of a microsecond": Duration(nanos=1000),
    "below zero": Duration(seconds=-1),
    "a nanosecond below zero": Duration(nanos=-1),
    "of 10 years and a second": Duration(seconds=TEN_YEARS_S + 1),
    "of all time": Duration(seconds=315_576_000_000),
    "past all time": Duration(seconds=(1 << 63) - 1),
    "before all time": Duration(seconds=-(1 << 63)),
}
BAD_NANOS = {
    "with nanoseconds beyond a second": Duration(seconds=1, nanos=1_000_000_000),
    "with nanoseconds far below a second": Duration(seconds=1, nanos=-(1 << 31)),
}
BAD_TIMES = {
    "of 1970": Timestamp(),
    "of the year 1": Timestamp(seconds=-62_135_596_800),
    "of the year 9999": Timestamp(seconds=253_402_300_799),
    "past all time": Timestamp(seconds=(1 << 63) - 1),
    "before all time": Timestamp(seconds=-(1 << 63)),
}
BAD_STAMPS = {
    "with nanoseconds beyond a second": Timestamp(seconds=4_000_000_000, nanos=1_000_000_000),
    "with nanoseconds below zero": Timestamp(seconds=4_000_000_000, nanos=-1),
}

# Methods of one key, and what their request needs beside it.
ONE_KEY = {
    "Get": (cache.GetRequest, {}),
    "GetAndTouch": (cache.GetAndTouchRequest, {"never": True}),
    "Set": (cache.SetRequest, {}),
    "Delete": (cache.DeleteRequest, {}),
    "Touch": (cache.TouchRequest, {"never": True}),
    "Increment": (cache.IncrementRequest, {"delta": 1}),
}
EXPIRING = {
    "Set": cache.SetRequest,
    "Touch": cache.TouchRequest,
    "GetAndTouch": cache.GetAndTouchRequest,
}
WITH_NAMESPACE = {
    **{name: (kind, {"key": KEPT} | more) for name, (kind, more) in ONE_KEY.items()},
    "BatchGet": (cache.BatchGetRequest, {"keys": [KEPT]}),
    "BatchDelete": (cache.BatchDeleteRequest, {"keys": [b"absent"]}),
    "DeletePrefix": (cache.DeletePrefixRequest, {"prefix": b"absent"}),
    "ListKeys": (cache.ListKeysRequest, {}),
}


def rows() -> Iterator[Row]:
    """Every row."""
    yield from bad_keys()
    yield from bad_expirations()
    yield from bad_fields()
    yield from bad_states()
    yield from bad_talk()
    yield from bad_control()
    yield from strangers()


def v1(name: str, method: str, message: Message, reason: str, code: str = BAD) -> Row:
    """A row of CacheService."""
    return Row(f"{method} {name}", CACHE + method, message, code, reason)


def bad_keys() -> Iterator[Row]:
    """Keys, prefixes and namespaces."""
    for method, (kind, more) in ONE_KEY.items():
        yield v1("an empty key", method, kind(**more), "KEY_EMPTY")
        yield v1("a key of 1,025 bytes", method, kind(key=LONG_KEY, **more), "KEY_TOO_LONG")
    for method, (kind, more) in WITH_NAMESPACE.items():
        yield v1("a namespace in Greek", method, kind(namespace="αβγ", **more), "NAMESPACE_INVALID")
    for how, namespace in BAD_NAMESPACES.items():
        message = cache.SetRequest(namespace=namespace, key=KEPT)
        yield v1(f"a namespace {how}", "Set", message, "NAMESPACE_INVALID")
    for method, kind in {
        "DeletePrefix": cache.DeletePrefixRequest,
        "ListKeys": cache.ListKeysRequest,
    }.items():
        yield v1("a prefix of 1,025 bytes", method, kind(prefix=LONG_KEY), "KEY_TOO_LONG")
    for key, reason in ((b"", "KEY_EMPTY"), (LONG_KEY, "KEY_TOO_LONG")):
        keys = cache.BatchGetRequest(keys=[KEPT, key])
        yield v1(f"of {len(key)} bytes of key", "BatchGet", keys, reason)


def bad_expirations() -> Iterator[Row]:
    """Times to live and times to end."""
    for method, kind in EXPIRING.items():
        for how, ttl in BAD_TTLS.items():
            yield v1(f"a TTL {how}", method, kind(key=KEPT, ttl=ttl), "TTL_OUT_OF_RANGE")
        for how, ttl in BAD_NANOS.items():
            yield v1(f"a TTL {how}", method, kind(key=KEPT, ttl=ttl), "FIELD_INVALID")
        for how, at in BAD_TIMES.items():
            yield v1(f"an end {how}", method, kind(key=KEPT, expire_time=at), "TTL_OUT_OF_RANGE")
        for how, at in BAD_STAMPS.items():
            yield v1(f"an end {how}", method, kind(key=KEPT, expire_time=at), "FIELD_INVALID")
    for how, ttl in BAD_TTLS.items():
        message = cache.IncrementRequest(key=b"absent", delta=1, initial_ttl=ttl)
        yield v1(f"a TTL {how}", "Increment", message, "TTL_OUT_OF_RANGE")


def bad_fields() -> Iterator[Row]:
    """Values, batches, switches that are off, and what contradicts itself."""
    condition = cache.Precondition
    yield v1(
        "a value over 3 MiB",
        "Set",
        cache.SetRequest(key=KEPT, value=LARGE_VALUE),
        "VALUE_TOO_LARGE",
    )
    many = [b"absent"] * 1001
    yield v1("1,001 keys", "BatchGet", cache.BatchGetRequest(keys=many), "BATCH_TOO_LARGE")
    yield v1("1,001 keys", "BatchDelete", cache.BatchDeleteRequest(keys=many), "BATCH_TOO_LARGE")
    sets = [cache.SetRequest(key=b"absent")] * 1001
    yield v1("1,001 requests", "BatchSet", cache.BatchSetRequest(requests=sets), "BATCH_TOO_LARGE")
    for name, message in {
        "keep_expire_time off": cache.SetRequest(key=KEPT, keep_expire_time=False),
        "if_absent off": cache.SetRequest(key=KEPT, precondition=condition(if_absent=False)),
        "if_present off": cache.SetRequest(key=KEPT, precondition=condition(if_present=False)),
        "a precondition without a condition": cache.SetRequest(key=KEPT, precondition=condition()),
    }.items():
        yield v1(name, "Set", message, "FIELD_INVALID")
    for name, message in {
        "if_absent off": cache.DeleteRequest(key=KEPT, precondition=condition(if_absent=False)),
        "if_present off": cache.DeleteRequest(key=KEPT, precondition=condition(if_present=False)),
        "a precondition without a condition": cache.DeleteRequest(
            key=KEPT, precondition=condition()
        ),
    }.items():
        yield v1(name, "Delete", message, "FIELD_INVALID")
    for method, kind in {
        "Touch": cache.TouchRequest,
        "GetAndTouch": cache.GetAndTouchRequest,
    }.items():
        yield v1("never off", method, kind(key=KEPT, never=False), "FIELD_INVALID")
        yield v1("no expiration", method, kind(key=KEPT), "FIELD_INVALID")
    prefixes = cache.DeletePrefixRequest
    yield v1("neither prefix nor all", "DeletePrefix", prefixes(), "FIELD_INVALID")
    yield v1(
        "both prefix and all", "DeletePrefix", prefixes(prefix=b"k", all=True), "FIELD_INVALID"
    )
    bounds = cache.IncrementRequest(key=KEPT, delta=1, lower_bound=2, upper_bound=1)
    yield v1("bounds that cross", "Increment", bounds, "FIELD_INVALID")
    yield v1("a negative page", "ListKeys", cache.ListKeysRequest(page_size=-1), "FIELD_INVALID")
    least = cache.ListKeysRequest(page_size=-(1 << 31))
    yield v1("the most negative page", "ListKeys", least, "FIELD_INVALID")
    for how, token in bad_tokens().items():
        message = cache.ListKeysRequest(page_token=token)
        yield v1(f"a page token {how}", "ListKeys", message, "PAGE_TOKEN_INVALID")
    for how, bad in {"of 65 bytes": "x" * 65, "with a blank": "a b", "in Greek": "αβγ"}.items():
        for method, message in {
            "Set": cache.SetRequest(key=KEPT, request_id=bad),
            "Delete": cache.DeleteRequest(key=KEPT, request_id=bad),
            "Touch": cache.TouchRequest(key=KEPT, never=True, request_id=bad),
            "Increment": cache.IncrementRequest(key=b"absent", request_id=bad),
            "BatchSet": cache.BatchSetRequest(request_id=bad),
            "BatchDelete": cache.BatchDeleteRequest(keys=[KEPT], request_id=bad),
            "DeletePrefix": cache.DeletePrefixRequest(all=True, request_id=bad),
        }.items():
            yield v1(f"a request id {how}", method, message, "FIELD_INVALID")


def bad_tokens() -> dict[str, str]:
    """Texts that no server gave out as a token."""
    return {
        "of one letter": "A",
        "that is no base64": "!!!!",
        "of noughts": "A" * 40,
        "far too long": "A" * 200_000,
        "in Greek": "αβγ",
    }


def bad_states() -> Iterator[Row]:
    """What the entries that are there rule out."""
    word = cache.IncrementRequest(key=KEPT, delta=1)
    yield v1("a word", "Increment", word, "NOT_A_NUMBER", "FAILED_PRECONDITION")
    over = cache.IncrementRequest(key=b"most", delta=1)
    yield v1("past the largest number", "Increment", over, "OVERFLOW", "OUT_OF_RANGE")
    under = cache.IncrementRequest(key=b"least", delta=-1)
    yield v1("past the smallest number", "Increment", under, "OVERFLOW", "OUT_OF_RANGE")
    fresh = cache.IncrementRequest(key=b"absent", initial_value=(1 << 63) - 1, delta=1)
    yield v1("past it at once", "Increment", fresh, "OVERFLOW", "OUT_OF_RANGE")
    full = cache.SetRequest(key=b"one too many")
    yield Row(
        "Set a key too many",
        CACHE + "Set",
        full,
        "RESOURCE_EXHAUSTED",
        "KEY_QUOTA_EXCEEDED",
        "full",
    )
    grow = cache.SetRequest(key=b"a", value=bytes(4096))
    yield Row(
        "Set a byte too many",
        CACHE + "Set",
        grow,
        "RESOURCE_EXHAUSTED",
        "BYTE_QUOTA_EXCEEDED",
        "full",
    )


def bad_talk() -> Iterator[Row]:
    """The talk's contract."""
    for name, method, message, code, reason in (
        ("an empty key", "Store", talk.StoreReq(), BAD, "KEY_EMPTY"),
        ("a long key", "Store", talk.StoreReq(key="k" * 1025), BAD, "KEY_TOO_LONG"),
        ("a long key in Greek", "Store", talk.StoreReq(key="κ" * 513), BAD, "KEY_TOO_LONG"),
        (
            "a large value",
            "Store",
            talk.StoreReq(key="kept", val=LARGE_VALUE),
            BAD,
            "VALUE_TOO_LARGE",
        ),
        ("an empty key", "Get", talk.GetReq(), BAD, "KEY_EMPTY"),
        ("a long key", "Get", talk.GetReq(key="k" * 1025), BAD, "KEY_TOO_LONG"),
        ("a missing key", "Get", talk.GetReq(key="absent"), "NOT_FOUND", "KEY_NOT_FOUND"),
    ):
        yield Row(f"the talk's {method} {name}", TALK + method, message, code, reason)
    full = talk.StoreReq(key="one too many")
    yield Row(
        "the talk's Store a key too many",
        TALK + "Store",
        full,
        "FAILED_PRECONDITION",
        "KEY_QUOTA_EXCEEDED",
        "full",
    )
    for how, token in {"unknown": "unknown", "long": "t" * 2000, "in Greek": "αβγ"}.items():
        for method, message in {
            "Store": talk.StoreReq(key="kept", account_token=token),
            "Get": talk.GetReq(key="kept", account_token=token),
        }.items():
            name = f"the talk's {method} a token {how}"
            yield Row(name, TALK + method, message, "UNAUTHENTICATED", "TOKEN_INVALID", "")
    message = talk.GetByTokenReq(token="unknown")
    yield Row(
        "the talk's GetByToken unknown",
        TALK_ACCOUNTS + "GetByToken",
        message,
        "NOT_FOUND",
        "TOKEN_NOT_FOUND",
        "admin",
    )


def bad_control() -> Iterator[Row]:
    """The control plane, as an administrator."""
    account, token = accounts.Account, accounts.Token

    def row(what: str, method: str, reason: str, code: str = BAD, /, **fields: object) -> Row:
        message = getattr(accounts, f"{method}Request")(**fields)
        return Row(f"{method} {what}", CONTROL + method, message, code, reason, "admin")

    for how, name in BAD_NAMESPACES.items():
        yield row(f"a name {how}", "CreateAccount", "FIELD_INVALID", account_id=name)
    yield row("no name", "CreateAccount", "FIELD_INVALID")
    yield row(
        "a name that is taken",
        "CreateAccount",
        "ACCOUNT_EXISTS",
        "ALREADY_EXISTS",
        account_id="user",
    )
    for field in ("max_keys", "max_bytes", "max_requests_per_second"):
        below = account(**{field: -1})
        yield row(
            f"{field} below 0", "CreateAccount", "FIELD_INVALID", account_id="a", account=below
        )
    long_name, rude_name = account(display_name="n" * 257), account(display_name="\x1b[2J")
    yield row(
        "a long display name", "CreateAccount", "FIELD_INVALID", account_id="a", account=long_name
    )
    yield row(
        "a rude display name", "CreateAccount", "FIELD_INVALID", account_id="a", account=rude_name
    )
    yield row(
        "a bad request id", "CreateAccount", "FIELD_INVALID", account_id="a", request_id="a b"
    )

    for method in ("GetAccount", "DeleteAccount"):
        for bad in ("", "user", "accounts/", "accounts/User", "accounts/user/", "accounts/*"):
            yield row(f"named {bad!r}", method, "FIELD_INVALID", name=bad)
        yield row("nobody", method, "ACCOUNT_NOT_FOUND", "NOT_FOUND", name="accounts/nobody")
    yield row(
        "default",
        "DeleteAccount",
        "ACCOUNT_PROTECTED",
        "FAILED_PRECONDITION",
        name="accounts/default",
    )

    user = account(name="accounts/user")
    stale = account(name="accounts/user", etag="stale", max_keys=1)
    yield row("nothing", "UpdateAccount", "FIELD_INVALID")
    nobody = account(name="accounts/nobody", max_keys=1)
    yield row("nobody", "UpdateAccount", "ACCOUNT_NOT_FOUND", "NOT_FOUND", account=nobody)
    yield row("a stale etag", "UpdateAccount", "ETAG_MISMATCH", "ABORTED", account=stale)
    for path in ("uid", "name", "maxkeys"):
        mask = FieldMask(paths=[path])
        yield row(
            f"the field {path!r}", "UpdateAccount", "FIELD_INVALID", account=user, update_mask=mask
        )
    below = account(name="accounts/user", max_keys=-1)
    yield row(
        "max_keys below 0",
        "UpdateAccount",
        "FIELD_INVALID",
        account=below,
        update_mask=FieldMask(paths=["max_keys"]),
    )

    parent = "accounts/user"
    for name, fields in {
        "a short secret": {"secret": "short"},
        "a long secret": {"secret": "s" * 1025},
        "a secret with a space": {"secret": "not a header"},
        "an unknown action": {"token": token(actions=[77])},
        "a bad namespace": {"token": token(namespaces=["A"])},
        "65 namespaces": {"token": token(namespaces=[f"n{i}" for i in range(65)])},
        "a long prefix": {"token": token(key_prefix=LONG_KEY)},
        "an end in the past": {"token": token(expire_time=Timestamp(seconds=1))},
    }.items():
        yield row(name, "CreateToken", "FIELD_INVALID", parent=parent, **fields)
    yield row(
        "a secret that is taken",
        "CreateToken",
        "TOKEN_EXISTS",
        "ALREADY_EXISTS",
        parent=parent,
        secret="taken-secret",
    )
    yield row(
        "for nobody", "CreateToken", "ACCOUNT_NOT_FOUND", "NOT_FOUND", parent="accounts/nobody"
    )
    yield row("for no name", "CreateToken", "FIELD_INVALID", parent="user")
    yield row("of nobody", "ListTokens", "ACCOUNT_NOT_FOUND", "NOT_FOUND", parent="accounts/nobody")
    for bad in ("", "accounts/user", "accounts/user/tokens/", "accounts/user/tokens/-"):
        yield row(f"named {bad!r}", "RevokeToken", "FIELD_INVALID", name=bad)
    yield row(
        "nothing",
        "RevokeToken",
        "TOKEN_NOT_FOUND",
        "NOT_FOUND",
        name="accounts/user/tokens/unknown",
    )
    yield row("unknown", "VerifyToken", "TOKEN_NOT_FOUND", "NOT_FOUND", secret="unknown")
    for method, fields in {"ListAccounts": {}, "ListTokens": {"parent": parent}}.items():
        yield row("a negative page", method, "FIELD_INVALID", page_size=-1, **fields)
        yield row("a bad page token", method, "PAGE_TOKEN_INVALID", page_token="!!!!", **fields)


def strangers() -> Iterator[Row]:
    """The control plane, as somebody who may not."""
    service = accounts.DESCRIPTOR.services_by_name["AccountService"]
    for method in service.methods:
        message = getattr(accounts, method.input_type.name)()
        path = CONTROL + method.name
        for who, code, reason in (
            ("", "UNAUTHENTICATED", "TOKEN_MISSING"),
            ("user", "PERMISSION_DENIED", "SCOPE_DENIED"),
            ("revoked", "UNAUTHENTICATED", "TOKEN_INVALID"),
            ("expired", "UNAUTHENTICATED", "TOKEN_INVALID"),
        ):
            yield Row(f"{method.name} as {who or 'nobody'}", path, message, code, reason, who)
    for who in ("revoked", "expired"):
        message = cache.GetRequest(key=KEPT)
        yield Row(f"Get as {who}", CACHE + "Get", message, "UNAUTHENTICATED", "TOKEN_INVALID", who)


def streams() -> Iterator[Row]:
    """Streams, for gRPC alone."""
    yield v1(
        "a namespace in Greek", "Dump", cache.DumpRequest(namespace="αβγ"), "NAMESPACE_INVALID"
    )
    yield v1("a long prefix", "Dump", cache.DumpRequest(prefix=LONG_KEY), "KEY_TOO_LONG")
    for how, token in bad_tokens().items():
        message = cache.DumpRequest(resume_token=token)
        yield v1(f"a resume token {how}", "Dump", message, "RESUME_TOKEN_INVALID")
    many = [entry.Entry(key=b"absent")] * 1001
    yield v1("1,001 entries", "Load", cache.LoadRequest(entries=many), "BATCH_TOO_LARGE")
    message = talk.DumpReq(account_token="unknown")
    yield Row(
        "the talk's Dump a token unknown",
        TALK + "Dump",
        message,
        "UNAUTHENTICATED",
        "TOKEN_INVALID",
        "",
    )
