"""`clients/php/json.php`: larder from PHP, with JSON over HTTP."""

import json
import os
import shutil
import subprocess

import pytest

from harness import PATIENCE_S, environment
from stubs import ROOT
from test_guides import BLOCK, stands_in

PROGRAM = ROOT / "clients/php/json.php"
LIBRARY = ROOT / "clients/php/larder.php"

pytestmark = pytest.mark.skipif(
    not shutil.which("php") and "CI" not in os.environ, reason="not installed: php"
)


def run(*arguments: str) -> subprocess.CompletedProcess:
    """Runs it to its end."""
    return subprocess.run(
        ["php", PROGRAM, *arguments], capture_output=True, timeout=PATIENCE_S, env=environment()
    )


def test_entries_misses_and_errors(server):
    done = run(server.url, server.account("php"))
    assert done.returncode == 0, done.stdout + done.stderr
    found, refused = map(json.loads, done.stdout.splitlines())
    assert found == {"gopher": b"con\x00\xff".hex(), "none": None}
    assert refused == ["invalid_argument", "KEY_EMPTY", False]


def test_a_token_that_is_none_is_an_error(server):
    done = run(server.url, "lrd_nobody")
    assert done.returncode != 0
    assert b"LarderError" in done.stdout + done.stderr


def test_the_page_shows_what_is_tested():
    text = (ROOT / "docs/clients/others.md").read_text()
    blocks = [body for kind, body in BLOCK.findall(text) if kind == "php" and "curl_" in body]
    assert len(blocks) == 2
    for block in blocks:
        assert stands_in(block.rstrip("\n").split("\n"), LIBRARY.read_text().splitlines())
