"""A proxy that breaks connections: `larder-torture proxy`."""

import os
import subprocess
from pathlib import Path

from harness import LARDER, environment

TORTURE = Path(os.environ.get("LARDER_TORTURE_BIN", LARDER.with_name("larder-torture")))


class Proxy:
    """A proxy in front of a server, until the end of its `with`.

    `--seed N` draws faults for each connection; `--plan FAULTS` names those of the
    next one, and may be repeated.
    """

    def __init__(self, target: str, *arguments: str):
        command = [TORTURE, "proxy", "--to", target, *arguments]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment()
        )
        line = self._process.stdout.readline().strip()
        assert line.startswith("listening on "), line
        self.address = line.removeprefix("listening on ")

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
