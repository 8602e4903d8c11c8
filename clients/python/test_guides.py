"""The code in `docs/clients` is cut from programs that the tests run."""

import re
import textwrap
from pathlib import Path

import pytest

from stubs import ROOT

# Each guide, and the folders that its code is from.
GUIDES = {
    "browser": ["clients/browser"],
    "cpp": ["clients/cpp"],
    "csharp": ["clients/csharp"],
    "go": ["clients/go"],
    "java": ["clients/java"],
    "node": ["clients/node"],
    "python": ["clients/python"],
    "ruby": ["clients/ruby"],
    "rust": ["clients/rust-tonic", "client/examples"],
}
# Not programs: what is typed, what is no code, and C# for .NET, which is not to be had here.
UNTESTED = {"sh", "text", "cs"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SUFFIXES = {
    ".cc",
    ".cs",
    ".go",
    ".java",
    ".js",
    ".py",
    ".rb",
    ".rs",
    ".toml",
    ".ts",
    ".txt",
    ".xml",
}


def without_indent(lines: list[str]) -> list[str]:
    """The lines, the outermost at the margin."""
    return textwrap.dedent("\n".join(lines)).split("\n")


def stands_in(block: list[str], source: list[str]) -> bool:
    """Whether these lines follow each other somewhere, at any indent."""
    count = len(block)
    return any(
        source[start].strip() == block[0].strip()
        and without_indent(source[start : start + count]) == block
        for start in range(len(source) - count + 1)
    )


def sources(folder: Path) -> list[list[str]]:
    """The files of a client."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in SUFFIXES]
    return [file.read_text().splitlines() for file in files if "node_modules" not in file.parts]


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_shows_only_code_that_is_tested(guide):
    text = (ROOT / f"docs/clients/{guide}.md").read_text()
    blocks = [body for language, body in BLOCK.findall(text) if language not in UNTESTED]
    assert len(blocks) >= 7
    files = [file for folder in GUIDES[guide] for file in sources(ROOT / folder)]
    for block in blocks:
        lines = block.rstrip("\n").split("\n")
        assert any(stands_in(lines, file) for file in files), f"in no file:\n{block}"


def test_every_guide_is_tested_or_says_that_it_is_not():
    guides = {file.stem for file in (ROOT / "docs/clients").glob("*.md")}
    assert guides == {*GUIDES, "others"}
    assert "untested" in (ROOT / "docs/clients/others.md").read_text()
    assert "**Not run by the tests**" in (ROOT / "docs/clients/csharp.md").read_text()


def test_a_changed_line_is_noticed():
    assert stands_in(["if a:", "    b()"], ["x", "  if a:", "      b()", "y"])
    assert not stands_in(["if a:", "    b()"], ["  if a:", "      c()"])
    assert not stands_in(["if a:", "    b()"], ["  if a:", "  b()"])
