"""Runs a client of any language against fresh servers, and prints who can do what.

    matrix.py run ROW [--page FOLDER] -- COMMAND...
    matrix.py show

`run` gives COMMAND the servers by its environment, reads a line of JSON for each behaviour from its
output, asks the servers whether that is so, and keeps the row in `.cache/matrix`. With `--page`,
COMMAND is a browser: it gets the address of a page in FOLDER, which posts the lines to `/report`.
`show` prints all rows.
"""

import argparse
import json
import subprocess
import sys
import threading

import page
from harness import environment
from scene import Scene
from stubs import ROOT

ROWS = ROOT / ".cache/matrix"
BEHAVIOURS = ["talk", "quota", "deadline", "dry-run", "dump", "retry", "once", "failover"]

# In the order of the table.
LANGUAGES = ["python", "go", "java", "node", "cpp", "ruby", "rust", "browser", "csharp", "php"]

# A client that takes longer is ended.
TOUR_LIMIT_S = 120


class Row:
    """What one client reported of each behaviour."""

    def __init__(self, scene: Scene, unseen: tuple[str, ...] = ()):
        """Takes the client's word for the behaviours that are `unseen`."""
        self._scene = scene
        self._unseen = unseen
        self.results: dict[str, dict[str, str]] = {}

    def take(self, line: str) -> bool:
        """Notes one line; true if the client waits for an answer to it."""
        try:
            report = json.loads(line)
            behaviour, outcome = report["behaviour"], report["outcome"]
        except (ValueError, KeyError, TypeError):
            print(line, file=sys.stderr)
            return False
        if outcome == "waiting":
            self._scene.end_one_of_the_pair()
            return True
        result = {"outcome": outcome, "why": report.get("why", "")}
        is_seen = outcome == "passed" and behaviour not in self._unseen
        if is_seen and (objection := self._scene.objection(behaviour)):
            result = {"outcome": "failed", "why": objection}
        self.results[behaviour] = result
        return False

    def close(self) -> None:
        """What was not reported has failed, and so has what is unsupported for no reason."""
        for behaviour in BEHAVIOURS:
            nothing = {"outcome": "failed", "why": "not reported"}
            result = self.results.setdefault(behaviour, nothing)
            if result["outcome"] not in ("passed", "unsupported", "failed"):
                result |= {"outcome": "failed", "why": f"reported {result['outcome']}"}
            if result["outcome"] == "unsupported" and not result["why"]:
                result |= {"outcome": "failed", "why": "unsupported, and no reason given"}


def follow(command: list[str], row: Row, variables: dict[str, str]) -> int:
    """Runs a client to its end; returns its exit status."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(**variables),
    ) as client:
        overdue = threading.Timer(TOUR_LIMIT_S, client.kill)
        overdue.start()
        try:
            for line in client.stdout:
                if row.take(line.rstrip("\n")):
                    client.stdin.write("done\n")
                    client.stdin.flush()
            return client.wait()
        finally:
            overdue.cancel()
            client.kill()


def run(arguments: argparse.Namespace) -> int:
    """Makes one row."""
    file = ROWS / f"{arguments.row}.json"
    file.unlink(missing_ok=True)
    if arguments.page:
        row = page.tour(arguments.page, arguments.command, Row, TOUR_LIMIT_S)
        status = 0
    else:
        with Scene() as scene:
            row = Row(scene)
            status = follow(arguments.command, row, scene.environment())
    row.close()
    ROWS.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(row.results, indent=1))
    for behaviour in BEHAVIOURS:
        result = row.results[behaviour]
        print(f"{behaviour:<9} {result['outcome']} {result['why']}".rstrip())
    has_failed = any(result["outcome"] == "failed" for result in row.results.values())
    if status != 0:
        print(f"the client ended with exit status {status}")
    return 1 if has_failed or status != 0 else 0


def table() -> str:
    """All rows, and below them why something is not there."""
    notes: list[str] = []
    lines = [["", *BEHAVIOURS]]
    for language in LANGUAGES:
        file = ROWS / f"{language}.json"
        if not file.exists():
            lines.append([language, *["not run"] * len(BEHAVIOURS)])
            continue
        results = json.loads(file.read_text())
        lines.append([language, *(cell(results[name], notes) for name in BEHAVIOURS)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join(rows + [f"({n}) {why}" for n, why in enumerate(notes, start=1)])


def cell(result: dict[str, str], notes: list[str]) -> str:
    """One word, and the number of its reason."""
    word = {"passed": "yes", "unsupported": "no", "failed": "FAILED"}[result["outcome"]]
    if not result["why"]:
        return word
    if result["why"] not in notes:
        notes.append(result["why"])
    return f"{word} ({notes.index(result['why']) + 1})"


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("show")
    runs = commands.add_parser("run")
    runs.add_argument("row", choices=LANGUAGES)
    runs.add_argument("--page")
    runs.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    if arguments.what == "run":
        return run(arguments)
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
