"""nginx, HAProxy and Envoy with the files of `deploy/`, as grpc-go finds them.

`LARDER_BALANCED` names the program of `clients/go/cmd/balanced`, which makes the calls; the servers
and the balancers are those of `test_balancers.py`.
"""

import contextlib
import json
import os
import subprocess
import threading

import pytest

from balancers import TOKENS, Pair, installed, secret, wait_for, wait_until_asked
from harness import PATIENCE_S, environment
from stubs import ROOT

PROGRAM = os.environ.get("LARDER_BALANCED")

# For all that the program does between two looks at it.
LIMIT_S = 4 * PATIENCE_S

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="LARDER_BALANCED names no program")


@pytest.fixture(params=installed())
def pair(request, tmp_path, authority):
    """Two servers behind a balancer."""
    with Pair(request.param, tmp_path, authority) as pair:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        pair.variables = environment(
            BALANCED_ADDRESS=pair.address,
            BALANCED_CA=str(tmp_path / "ca.pem"),
            BALANCED_TOKENS=",".join(secret(number) for number in range(TOKENS)),
            BALANCED_SERVICE_CONFIG=str(ROOT / "clients/service-config.json"),
        )
        yield pair


class GoCallers:
    """Callers from Go that ask one after the other, until they are told to end."""

    def __init__(self, pair: Pair):
        self.errors: list[str] = []
        self._pair = pair

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._process = stack.enter_context(
                subprocess.Popen(
                    [PROGRAM, "calls"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=self._pair.variables,
                )
            )
            stack.callback(self._process.kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, *_: object):
        with self._stack:
            if kind is None:
                self._process.stdin.close()
                self._hear()
                assert self._process.wait(PATIENCE_S) == 0

    def _hear(self) -> None:
        """Reads what it says; without a word in time it is ended."""
        overdue = threading.Timer(LIMIT_S, self._process.kill)
        overdue.start()
        try:
            line = self._process.stdout.readline()
        finally:
            overdue.cancel()
        assert line, f"no answers\n{self._pair.log()}"
        self.errors = json.loads(line)["errors"]

    def wait_for_more(self) -> None:
        """Returns when each caller had an answer for each token more, or one an error."""
        self._process.stdin.write("more\n")
        self._process.stdin.flush()
        self._hear()


def test_calls_pass_and_a_deadline_ends_them(pair):
    done = subprocess.run(
        [PROGRAM, "once"], capture_output=True, text=True, timeout=LIMIT_S, env=pair.variables
    )
    assert done.stdout.split() == ["unary", "details", "dump", "deadline"], done.stderr + pair.log()
    assert done.returncode == 0

    def has_given_up() -> bool:
        lines = "".join(node.larder.stderr() for node in pair.nodes).splitlines()
        gets = [line for line in lines if "CacheService/Get" in line]
        return any("DEADLINE_EXCEEDED" in line or "CANCELLED" in line for line in gets)

    wait_for(has_given_up, "no server has left off")


def test_no_idempotent_call_fails_when_a_server_dies(pair):
    with GoCallers(pair) as callers:
        for node in pair.nodes:
            callers.wait_for_more()
            node.die()
            callers.wait_for_more()
            node.start()
            wait_until_asked(node, callers)
    assert callers.errors == []


def test_no_idempotent_call_fails_during_a_rolling_restart(pair):
    with GoCallers(pair) as callers:
        for node in [*pair.nodes, *pair.nodes]:
            callers.wait_for_more()
            node.end()
            callers.wait_for_more()
            node.start()
            wait_until_asked(node, callers)
    assert callers.errors == []
