"""The servers that a client of any language is shown, and what they saw of it."""

import contextlib
import json
import threading
from concurrent import futures
from pathlib import Path

import grpc

from faults import Faults
from harness import PATIENCE_S, Larder, bearer, cache, talk, talk_grpc
from json_faults import JsonFaults
from stubs import ROOT

SERVICE_CONFIG = ROOT / "clients/service-config.json"

# Keys that the account without a token holds, for the dump.
ENTRIES = 5_000

# Who has less time than this is in haste: the tour's deadline is 1 s, and larder gives Accounts 2 s
# where its caller gives more.
HASTE_S = 1.5

# A key that the faulty server gives away at the third attempt.
RETRIED = b"unavailable-twice"


class SlowAccounts(talk_grpc.AccountsServicer):
    """The talk's Accounts server. It is slower than a caller in haste can wait."""

    def __init__(self):
        # One for each caller in haste, set when it has hung up.
        self.hung_up: list[threading.Event] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        talk_grpc.add_AccountsServicer_to_server(self, self._server)
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def GetByToken(self, request, context):  # noqa: ARG002, N802
        """Reads the account that a token belongs to."""
        if context.time_remaining() < HASTE_S:
            hung_up = threading.Event()
            self.hung_up.append(hung_up)
            if not context.add_callback(hung_up.set):
                hung_up.set()
            hung_up.wait(PATIENCE_S)
        return talk.GetByTokenResp(account=talk.Account(max_cache_keys=100))

    def stop(self) -> None:
        """Ends it at once."""
        for hung_up in self.hung_up:
            hung_up.set()
        self._server.stop(grace=None).wait(PATIENCE_S)


class Scene:
    """Fresh servers for one run of one client. Ends them all when it is left."""

    def __init__(self, *arguments: str, service_config: Path = SERVICE_CONFIG):
        self._service_config = service_config
        with contextlib.ExitStack() as stack:

            def start(*more: str) -> Larder:
                larder = Larder(*arguments, *more)
                stack.callback(larder.kill)
                return larder

            self.server = start()
            self.token = self.server.account("tour", max_keys=2)
            self.accounts = SlowAccounts()
            stack.callback(self.accounts.stop)
            self.slow = start("--accounts", self.accounts.url)
            self.faults = Faults(self.server.address)
            stack.callback(self.faults.stop)
            self.json_faults = JsonFaults(self.server.address, self.faults)
            stack.callback(self.json_faults.stop)
            self.pair = [start(), start()]
            self._fill()
            self._stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_: object):
        self._stack.close()

    def _fill(self) -> None:
        stub = self.server.cache()
        keys = [RETRIED, *(b"key-%d" % number for number in range(ENTRIES - 1))]
        for start in range(0, ENTRIES, 1000):
            requests = [
                cache.SetRequest(key=key, value=b"value of " + key)
                for key in keys[start : start + 1000]
            ]
            stub.BatchSet(cache.BatchSetRequest(requests=requests), timeout=PATIENCE_S)

    def environment(self) -> dict[str, str]:
        """What tells a client where everything is."""
        return {
            "TOUR_SERVER": self.server.address,
            "TOUR_TOKEN": self.token,
            "TOUR_ENTRIES": str(ENTRIES),
            "TOUR_SLOW_SERVER": self.slow.address,
            "TOUR_FAULTY_SERVER": self.faults.address,
            "TOUR_FAULTY_JSON_SERVER": self.json_faults.address,
            "TOUR_PAIR": ",".join(larder.address for larder in self.pair),
            "TOUR_SERVICE_CONFIG": str(self._service_config),
        }

    def end_one_of_the_pair(self) -> None:
        """Kills the one that holds the key `before`."""
        [holder] = [larder for larder in self.pair if self._holds(larder, b"before")]
        holder.process.kill()
        holder.process.wait()

    @staticmethod
    def _holds(larder: Larder, key: bytes) -> bool:
        reply = larder.cache().Get(cache.GetRequest(key=key), timeout=PATIENCE_S)
        return reply.HasField("hit")

    def objection(self, behaviour: str) -> str | None:
        """Why the servers do not believe that a client did what it says."""
        check = getattr(self, f"_check_{behaviour.replace('-', '_')}", None)
        try:
            return check() if check else None
        except (grpc.RpcError, ValueError) as error:
            return f"the servers show nothing of it: {error!r}"

    def _check_deadline(self) -> str | None:
        ended = all(hung_up.wait(PATIENCE_S) for hung_up in self.accounts.hung_up)
        return None if ended else "the server went on after the deadline"

    def _check_dry_run(self) -> str | None:
        stored = self.server.talk().Get(talk.GetReq(key="gopher"), metadata=bearer(self.token))
        return None if stored.val == b"con" else f"the dry run stored {stored.val}"

    def _check_retry(self) -> str | None:
        attempts = self.faults.attempts["Get", RETRIED]
        return None if attempts == [0, 1, 2] else f"attempts of Get: {attempts}"

    def _check_once(self) -> str | None:
        wanted = [("Get", b"not-found"), ("Get", b"failed-precondition"), ("Increment", RETRIED)]
        counts = {f"{m} {k.decode()}": len(self.faults.attempts[m, k]) for m, k in wanted}
        return None if set(counts.values()) == {1} else f"attempts: {json.dumps(counts)}"

    def _check_failover(self) -> str | None:
        [left] = [larder for larder in self.pair if larder.process.poll() is None] or [None]
        if left is None or not self._holds(left, b"after"):
            return "the server that is left has not got the entry"
        return None
