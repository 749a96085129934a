"""README and the first pages: short sentences, known words, no block of code that nobody ran."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from simulations.cli import main
from simulations.report.terms import find_term
from tests.test_commands import lines_of

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
MOST_WORDS = 30
WORDS = (
    *("adapter", "aggregation", "arm", "catalogue", "codec", "coefficient", "delta", "exact match"),
    *("fleet patch", "GradCut", "int8", "LoRA", "manner", "patch", "placement", "policy", "points"),
    *("reference", "release", "retune", "reuse", "seed", "selection", "study", "synthesis", "tier"),
    *("unseen answer", "null world", "canary", "drift", "ledger", "guidance", "observer", "site"),
)
"""Words of the product that a newcomer does not know."""
BLOCK = re.compile(r"(?:<!-- not run: (.+) -->\n)?```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RUN_LINES = r"(\w+=\S+ +)?((fleettune|make) run|fleettune (sweep|search))\b"
"""Checked by tests/test_commands.py."""


def prose_of(page: Path) -> str:
    """The page without code, tables, headings and pictures, and links without their targets."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    lines = [
        line for line in text.splitlines() if not line.startswith(("    ", "|", "#", "![", "<!--"))
    ]
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", "\n".join(lines))


def sentences_of(page: Path) -> list[str]:
    paragraphs = re.split(r"\n\s*\n|\n(?=- )", prose_of(page))
    return [
        sentence
        for paragraph in paragraphs
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z`*\d])", " ".join(paragraph.split()))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_sentence_has_more_than_30_words(page: Path) -> None:
    assert [one for one in sentences_of(page) if len(one.split()) > MOST_WORDS] == []


def test_every_word_of_the_product_that_the_readme_uses_is_explained() -> None:
    prose = prose_of(README)
    used = [word for word in WORDS if re.search(rf"\b{word}", prose, re.IGNORECASE)]
    assert len(used) > 15
    # in the glossary, or where it first stands, in italics
    assert [one for one in used if find_term(one) is None and f"*{one}*" not in prose] == []


def is_excerpt(code: str, whole: str) -> bool:
    """Whether all lines of a block stand in a file in their order, others between them."""
    lines = iter(whole.splitlines())
    return all(line in lines for line in code.splitlines() if line)


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda page: page.name)
def test_a_block_of_code_is_run_or_says_why_not(page: Path) -> None:
    examples = [file.read_text() for file in (ROOT / "docs" / "example_policy").glob("*.py")]
    for reason, kind, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        by_tutorial = page in TUTORIALS and kind in ("sh", "python")
        # an excerpt of an example, which tests/simulations/test_own_policy.py runs
        by_example = kind == "python" and any(is_excerpt(code, example) for example in examples)
        assert reason or by_tutorial or by_example, code


def commands() -> list[str]:
    """Every line of an indented block that runs no fleet."""
    lines = [re.sub(r"\s+#.*", "", line) for page in PAGES for line in lines_of(page)]
    code = {
        line
        for page in PAGES
        for *_, block in BLOCK.findall(page.read_text())
        for line in map(str.strip, block.splitlines())
    }
    known = (line for line in lines if line not in code and line[:1] != "#")
    return sorted({line for line in known if not re.match(RUN_LINES, line)})


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one_that_is_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[:1]) <= set(targets)
        return
    assert program == "fleettune"
    monkeypatch.chdir(tmp_path)
    # 0: done; 2: understood, but the reader's own files are not here; SystemExit: not understood
    assert main(words) in (0, 2)
