"""Requests with an id, and dry runs, from a stock Python client.

What a client cannot know after a failure is whether its request had its effect. With a
request id it need not: it asks again, by the same id, until it is answered.
"""

import concurrent.futures
import itertools
import json
import uuid

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from broken_network import Proxy
from harness import (
    CHANNEL_OPTIONS,
    PATIENCE_S,
    accounts,
    accounts_grpc,
    bearer,
    cache,
    cache_grpc,
    detail,
    entry,
    refused,
)

NUMBERS = itertools.count()

# gRFC A6: the library itself sends a call again that failed with UNAVAILABLE.
RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "larder.cache.v1.CacheService"}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)

# Failures that say nothing of what became of a call.
UNKNOWN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


def new_id() -> str:
    """A request id."""
    return str(uuid.uuid4())


class Client:
    """Calls in an account of its own, on a channel that can be made anew."""

    def __init__(self, address: str, secret: str, timeout: float = PATIENCE_S, retries: int = 1):
        self.address, self.metadata, self.timeout = address, bearer(secret), timeout
        self.retries, self.channel = retries, None
        self.reconnect()

    def reconnect(self) -> None:
        """Begins again with a connection of its own."""
        self.close()
        options = [
            *CHANNEL_OPTIONS,
            ("grpc.enable_retries", self.retries),
            ("grpc.service_config", RETRIES),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 20),
            ("grpc.min_reconnect_backoff_ms", 20),
            ("grpc.max_reconnect_backoff_ms", 100),
        ]
        self.channel = grpc.insecure_channel(self.address, options)
        self.stub = cache_grpc.CacheServiceStub(self.channel)

    def close(self) -> None:
        """Closes the channel."""
        if self.channel is not None:
            self.channel.close()

    def call(self, method: str, *, more: tuple = (), **fields: object):
        """One call of a method, with a request of these fields."""
        request = getattr(cache, f"{method}Request")(**fields)
        metadata = self.metadata + more
        return getattr(self.stub, method)(request, metadata=metadata, timeout=self.timeout)

    def until_answered(self, method: str, **fields: object):
        """The same call, until there is an answer; how often it was made."""
        attempts = 0
        while True:
            attempts += 1
            try:
                return self.call(method, **fields), attempts
            except grpc.RpcError as error:
                if error.code() not in UNKNOWN:
                    raise
            self.reconnect()


@pytest.fixture
def secret(server) -> str:
    """The token of an account of its own."""
    return server.account(f"once-{next(NUMBERS)}")


@pytest.fixture
def client(server, secret) -> Client:
    """A client of that account."""
    made = Client(server.address, secret)
    yield made
    made.close()


ABSENT = cache.Precondition(if_absent=True)


def reason_of(error: grpc.RpcError) -> str:
    """The reason of an error."""
    return detail(error, error_details_pb2.ErrorInfo).reason


def test_a_repeat_after_a_reconnect_is_answered_as_the_first_time(client):
    writes = [
        ("Increment", {"key": b"n", "delta": 3}),
        ("Set", {"key": b"k", "value": b"v", "precondition": ABSENT}),
        ("Delete", {"key": b"k", "precondition": cache.Precondition(if_present=True)}),
    ]
    for method, fields in writes:
        request_id = new_id()
        first = client.call(method, request_id=request_id, **fields)
        client.reconnect()
        again = client.call(method, request_id=request_id, **fields)
        assert (first.replayed, again.replayed) == (False, True), method
        again.replayed = False
        assert again == first, method
    assert client.call("Increment", key=b"n").value == 3
    usage = client.call("GetUsage")
    assert (usage.request_id_count, usage.forgotten_request_id_count) == (3, 0)


def test_a_batch_is_carried_out_entry_by_entry_once(client):
    requests = [
        cache.SetRequest(key=b"a", value=b"1", precondition=ABSENT),
        cache.SetRequest(key=b"", precondition=ABSENT),
        cache.SetRequest(key=b"c", value=b"3"),
    ]
    request_id = new_id()
    first = client.call("BatchSet", requests=requests, request_id=request_id)
    again = client.call("BatchSet", requests=requests, request_id=request_id)
    assert (first.replayed, again.replayed) == (False, True)
    outcomes = [
        [r.response.WhichOneof("outcome") or r.WhichOneof("result") for r in reply.results]
        for reply in (first, again)
    ]
    assert outcomes == [["applied", "error", "applied"]] * 2
    # Only what counts is recorded.
    assert [r.response.replayed for r in again.results] == [True, False, False]
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
        client.call("BatchSet", requests=requests[:1], request_id=request_id)


def test_an_id_stands_for_one_request(client):
    request_id = new_id()
    client.call("Increment", key=b"n", request_id=request_id)
    others = [
        ("Increment", {"key": b"n", "delta": 1}),
        ("Increment", {"key": b"m"}),
        ("Set", {"key": b"n", "precondition": ABSENT}),
        ("Set", {"key": b"n"}),
        ("Delete", {"key": b"n"}),
        ("Touch", {"key": b"n", "never": True}),
        ("DeletePrefix", {"prefix": b"n"}),
        ("BatchSet", {"requests": [cache.SetRequest(key=b"n")]}),
        ("BatchDelete", {"keys": [b"n"]}),
    ]
    for method, fields in others:
        with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED") as refusal:
            client.call(method, request_id=request_id, **fields)
        assert refusal.field() == "request_id", method
    assert client.call("Get", key=b"n").hit.value == b"0"


@pytest.mark.parametrize("bad", ["a b", "x" * 65, "ü", "a/b"])
def test_an_id_has_a_length_and_an_alphabet(client, bad):
    with refused("INVALID_ARGUMENT", "FIELD_INVALID") as refusal:
        client.call("Increment", key=b"n", request_id=bad)
    assert refusal.field() == "request_id"


def test_what_was_sent_before_and_counts_needs_an_id(server, secret):
    # A library that retries keeps the count to itself.
    client = Client(server.address, secret, retries=0)
    repeated = (("grpc-previous-rpc-attempts", "1"),)
    counts = [
        ("Increment", {"key": b"n"}),
        ("Set", {"key": b"k", "precondition": ABSENT}),
        ("Delete", {"key": b"k", "precondition": cache.Precondition(if_version=1)}),
        ("BatchSet", {"requests": [cache.SetRequest(key=b"k", precondition=ABSENT)]}),
    ]
    for method, fields in counts:
        with refused("ABORTED", "RETRY_UNSAFE"):
            client.call(method, more=repeated, **fields)
        client.call(method, more=repeated, request_id=new_id(), **fields)
    for method, fields in [("Set", {"key": b"s"}), ("Delete", {"key": b"s"})]:
        client.call(method, more=repeated, **fields)
    client.close()


def test_the_librarys_own_retries_are_safe_with_an_id_and_refused_without(server, secret):
    """The answer is lost on the way, wherever in it the connection breaks."""
    cuts = range(20, 180, 3)
    replayed, failures = 0, []
    direct = Client(server.address, secret)
    for cut in cuts:
        with Proxy(server.address, f"--plan=down:reset={cut}") as proxy:
            client = Client(proxy.address, secret)
            done, _ = client.until_answered("Increment", key=b"safe", delta=1, request_id=new_id())
            replayed += done.replayed
            client.close()
        with Proxy(server.address, f"--plan=down:reset={cut}") as proxy:
            client = Client(proxy.address, secret)
            try:
                client.call("Increment", key=b"unsafe", delta=1)
            except grpc.RpcError as error:
                failures.append(error)
            client.close()
    assert replayed > 0
    unsafe = [error for error in failures if error.code() == grpc.StatusCode.ABORTED]
    assert {reason_of(error) for error in unsafe} == {"RETRY_UNSAFE"}
    assert {error.code() for error in failures} <= UNKNOWN | {grpc.StatusCode.ABORTED}
    assert direct.call("Get", key=b"safe").hit.value == str(len(cuts)).encode()
    # Not one of them twice: the rest were refused, or never got an answer.
    assert int(direct.call("Get", key=b"unsafe").hit.value) <= len(cuts)
    direct.close()


def test_increments_through_faults_count_once_each(server, secret):
    """Each increment is sent until it is acknowledged, by eight clients at once."""
    clients, each = 8, 150

    def work(address: str) -> int:
        client = Client(address, secret, timeout=1)
        attempts = 0
        for _ in range(each):
            fields = {"key": b"counter", "delta": 1, "request_id": new_id()}
            attempts += client.until_answered("Increment", **fields)[1]
        client.close()
        return attempts

    attempts = 0
    for seed in (1, 2):
        with (
            Proxy(server.address, "--seed", str(seed)) as proxy,
            concurrent.futures.ThreadPoolExecutor(clients) as pool,
        ):
            attempts += sum(pool.map(work, [proxy.address] * clients))
    direct = Client(server.address, secret)
    assert direct.call("Get", key=b"counter").hit.value == str(2 * clients * each).encode()
    assert attempts > 2 * clients * each, "nothing had to be sent again"
    direct.close()


def test_a_dry_run_is_echoed_and_changes_nothing(client):
    client.call("Set", key=b"n", value=b"1")
    before = client.call("GetUsage")
    mutations = [
        ("Set", {"key": b"k", "value": b"v", "request_id": new_id()}),
        ("Set", {"key": b"k", "precondition": ABSENT, "request_id": new_id()}),
        ("Delete", {"key": b"n"}),
        ("Increment", {"key": b"n", "delta": 5, "request_id": new_id()}),
        ("Touch", {"key": b"n", "ttl": Duration(seconds=1)}),
        ("GetAndTouch", {"key": b"n", "ttl": Duration(seconds=1)}),
        ("BatchSet", {"requests": [cache.SetRequest(key=b"k")]}),
        ("BatchDelete", {"keys": [b"n"]}),
        ("DeletePrefix", {"all": True}),
    ]
    for method, fields in mutations:
        assert client.call(method, validate_only=True, **fields).validated_only, method
        by_metadata = client.call(method, more=(("dry-run", "1"),), **fields)
        assert by_metadata.validated_only, method
        # Metadata may only switch it on.
        both = client.call(method, more=(("dry-run", "0"),), validate_only=True, **fields)
        assert both.validated_only, method
    assert client.call("GetUsage") == before


@pytest.mark.parametrize("by_field", [True, False])
def test_a_dry_load_judges_its_entries_together(server, by_field):
    secret = server.account(f"load-{next(NUMBERS)}", max_keys=3)
    client = Client(server.address, secret)
    parts = [
        cache.LoadRequest(
            validate_only=by_field and number == 0,
            entries=[entry.Entry(key=f"{number}-{at}".encode()) for at in range(2)],
        )
        for number in range(3)
    ]
    more = () if by_field else (("dry-run", "1"),)
    metadata = client.metadata + more
    call = client.stub.Load(iter(parts), metadata=metadata, timeout=PATIENCE_S)
    replies = list(call)
    assert dict(call.initial_metadata()).get("dry-run") == (None if by_field else "1")
    counts = [(reply.stored_count, reply.refused_count) for reply in replies]
    assert counts == [(2, 0), (3, 1), (3, 3)]
    assert all(reply.validated_only for reply in replies)
    assert client.call("GetUsage").quota_usage.key_count == 0
    client.close()


def test_a_dry_batch_judges_its_entries_together(server):
    secret = server.account(f"batch-{next(NUMBERS)}", max_keys=2)
    client = Client(server.address, secret)
    keys = [b"a", b"a", b"b", b"c"]
    requests = [cache.SetRequest(key=key, precondition=ABSENT) for key in keys]
    kinds = []
    for validate_only in (True, False):
        reply = client.call("BatchSet", requests=requests, validate_only=validate_only)
        results = reply.results
        kinds.append([r.response.WhichOneof("outcome") or r.WhichOneof("result") for r in results])
    assert kinds == [["applied", "not_applied", "applied", "error"]] * 2
    client.close()


def test_changes_of_accounts_are_made_once(server):
    stub, admin = server.control(), bearer(server.admin_token)
    name = f"made-{next(NUMBERS)}"

    def call(method: str, more: tuple = (), **fields: object):
        request = getattr(accounts, f"{method}Request")(**fields)
        return getattr(stub, method)(request, metadata=admin + more, timeout=PATIENCE_S)

    made = call("CreateAccount", account_id=name, request_id="a")
    again = call("CreateAccount", account_id=name, request_id="a")
    assert (made.replayed, again.replayed) == (False, True)
    assert again.account == made.account
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
        call("CreateAccount", account_id=f"{name}-other", request_id="a")
    parent = f"accounts/{name}"
    token = call("CreateToken", parent=parent, request_id="t")
    again = call("CreateToken", parent=parent, request_id="t")
    # The secret is shown once.
    assert (again.token, again.secret, again.replayed) == (token.token, "", True)
    assert token.secret
    assert len(call("ListTokens", parent=parent).tokens) == 1
    with refused("ALREADY_EXISTS", "ACCOUNT_EXISTS"):
        call("CreateAccount", account_id=name, request_id="errors-are-not-recorded")
    deleted = [call("DeleteAccount", name=parent, request_id="d").replayed for _ in range(2)]
    assert deleted == [False, True]


class Control(Client):
    """The administrator's calls of the control plane."""

    def __init__(self, server, address: str):
        super().__init__(address, server.admin_token, timeout=1)

    def call(self, method: str, *, more: tuple = (), **fields: object):
        stub = accounts_grpc.AccountServiceStub(self.channel)
        request = getattr(accounts, f"{method}Request")(**fields)
        return getattr(stub, method)(request, metadata=self.metadata + more, timeout=self.timeout)


def test_creations_through_faults_make_one_each(server):
    """Each creation is sent until it is acknowledged, by four clients at once."""
    clients, each = 4, 25

    def work(address: str) -> tuple[int, int]:
        control, attempts, replayed = Control(server, address), 0, 0
        for _ in range(each):
            name = f"faulty-{next(NUMBERS)}"
            parent = f"accounts/{name}"
            made, tries = control.until_answered(
                "CreateAccount", account_id=name, request_id=new_id()
            )
            assert made.account.name == parent
            attempts, replayed = attempts + tries, replayed + made.replayed
            ids = [new_id() for _ in range(2)]
            tokens = []
            for request_id in ids:
                token, tries = control.until_answered(
                    "CreateToken", parent=parent, request_id=request_id
                )
                tokens.append(token.token.name)
                attempts, replayed = attempts + tries, replayed + token.replayed
                assert bool(token.secret) != token.replayed
            listed, _ = control.until_answered("ListTokens", parent=parent)
            assert sorted(token.name for token in listed.tokens) == sorted(tokens)
        control.close()
        return attempts, replayed

    with (
        Proxy(server.address, "--seed", "3") as proxy,
        concurrent.futures.ThreadPoolExecutor(clients) as pool,
    ):
        done = list(pool.map(work, [proxy.address] * clients))
    attempts, replayed = (sum(column) for column in zip(*done, strict=True))
    assert attempts > 3 * clients * each, "nothing had to be sent again"
    assert replayed > 0, "no answer was lost"


def test_a_token_whose_answer_is_lost_is_made_once_wherever_the_connection_breaks(server):
    parent = f"accounts/lost-{next(NUMBERS)}"
    direct = Control(server, server.address)
    direct.call("CreateAccount", account_id=parent.removeprefix("accounts/"))
    replayed, cuts = 0, range(20, 400, 10)
    for number, cut in enumerate(cuts):
        with Proxy(server.address, f"--plan=down:reset={cut}") as proxy:
            control = Control(server, proxy.address)
            # With a secret of the caller's own, a replay loses nothing.
            fields = {"secret": f"secret-of-mine-{parent}-{number}", "request_id": new_id()}
            made, _ = control.until_answered("CreateToken", parent=parent, **fields)
            replayed += made.replayed
            control.close()
    assert replayed > 0, "no answer was lost"
    assert len(direct.call("ListTokens", parent=parent, page_size=100).tokens) == len(cuts)
    # What was sent before, and has no id, is not made a second time.
    again = (("grpc-previous-rpc-attempts", "1"),)
    plain = Control(server, server.address)
    plain.retries = 0
    plain.reconnect()
    with refused("ABORTED", "RETRY_UNSAFE"):
        plain.call("CreateToken", parent=parent, more=again)
    for client in (direct, plain):
        client.close()


def test_a_retry_across_a_drained_restart_counts_once(larder, tmp_path):
    data = tmp_path / "data"
    first = larder(data_dir=data)
    team = first.account("team")
    writes = [
        ("Increment", {"key": b"n", "delta": 5, "request_id": "add"}),
        ("Set", {"key": b"k", "precondition": ABSENT, "request_id": "create"}),
        (
            "Delete",
            {
                "key": b"gone",
                "precondition": cache.Precondition(if_version=1),
                "request_id": "delete",
            },
        ),
        (
            "BatchSet",
            {
                "requests": [cache.SetRequest(key=b"k", precondition=ABSENT)] * 2,
                "request_id": "batch",
            },
        ),
    ]
    client = Client(first.address, team)
    answers = [client.call(method, **fields) for method, fields in writes]
    assert not any(answer.replayed for answer in answers)
    client.close()
    first.stop()
    assert "requests=5" in first.stderr()

    second = larder(data_dir=data)
    client = Client(second.address, team)
    assert client.call("GetUsage").request_id_count == 5
    for (method, fields), answer in zip(writes, answers, strict=True):
        again = client.call(method, **fields)
        assert again.replayed, method
        again.replayed = False
        for result in getattr(again, "results", []):
            result.response.replayed = False
        assert again == answer, method
    assert client.call("Get", key=b"n").hit.value == b"5"
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
        client.call("Increment", key=b"n", delta=6, request_id="add")
    # Another account's ids are its own.
    other = Client(second.address, second.account("other"))
    assert not other.call("Increment", key=b"n", delta=5, request_id="add").replayed
    client.close()
    other.close()


def test_after_a_kill_a_request_of_the_snapshot_is_replayed_and_a_lost_one_counts(larder, tmp_path):
    data = tmp_path / "data"
    first = larder(data_dir=data)
    team = first.account("team")
    client = Client(first.address, team)
    client.call("Increment", key=b"n", delta=1, request_id="saved")
    client.close()
    first.stop()

    second = larder(data_dir=data)
    client = Client(second.address, team)
    client.call("Increment", key=b"n", delta=1, request_id="lost")
    client.close()
    second.process.kill()
    second.process.wait()

    third = larder(data_dir=data)
    client = Client(third.address, team)
    saved = client.call("Increment", key=b"n", delta=1, request_id="saved")
    assert (saved.replayed, saved.value) == (True, 1)
    lost = client.call("Increment", key=b"n", delta=1, request_id="lost")
    assert (lost.replayed, lost.value) == (False, 2)
    client.close()


@pytest.mark.parametrize("end", ["drained", "killed"])
def test_a_change_of_accounts_is_made_once_across_a_restart(larder, tmp_path, end):
    data = tmp_path / "data"
    first = larder(data_dir=data)
    token = first.admin_token

    def call(server, method: str, **fields: object):
        request = getattr(accounts, f"{method}Request")(**fields)
        stub = server.control()
        return getattr(stub, method)(request, metadata=bearer(token), timeout=PATIENCE_S)

    team, gone = "accounts/team", "accounts/gone"
    changed = accounts.Account(name=team, display_name="The team")
    changes = [
        ("CreateAccount", {"account_id": "team", "request_id": "c"}),
        ("CreateAccount", {"account_id": "gone", "request_id": "g"}),
        ("UpdateAccount", {"account": changed, "request_id": "u"}),
        ("DeleteAccount", {"name": gone, "request_id": "d"}),
        ("CreateToken", {"parent": team, "request_id": "t"}),
    ]
    answers = [call(first, method, **fields) for method, fields in changes]
    revoked = {"name": answers[-1].token.name, "request_id": "r"}
    changes.append(("RevokeToken", revoked))
    answers.append(call(first, "RevokeToken", **revoked))
    if end == "drained":
        first.stop()
    else:
        first.process.kill()
        first.process.wait()

    second = larder(data_dir=data)
    # The state of now does not matter: the answer is that of the first time.
    call(second, "UpdateAccount", account=accounts.Account(name=team, display_name="Others"))
    for (method, fields), answer in zip(changes, answers, strict=True):
        again = call(second, method, **fields)
        assert again.replayed, method
        again.replayed = False
        if method == "CreateToken":
            # A secret is shown once.
            assert (again.secret, bool(answer.secret)) == ("", True)
            answer.secret = ""
        assert again == answer, method
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
        call(second, "CreateAccount", account_id="team-2", request_id="c")
    listed = call(second, "ListAccounts").accounts
    assert {account.name for account in listed} == {"accounts/default", team}
    assert list(call(second, "ListTokens", parent=team).tokens) == []
