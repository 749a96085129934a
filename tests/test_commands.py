"""Commands that README and the pages of docs/ print: every run and sweep is composed and checked.

Runs themselves take minutes, so a command is taken as far as the first step of its run. What names
a file or a folder that a reader brings is checked with one made here, or left out with its reason.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from simulations.cli import main
from simulations.launch import check_all
from simulations.sweeps.grid import list_points
from simulations.sweeps.search_command import make_search_parser
from simulations.sweeps.search_space import format_point, list_corners, read_space
from simulations.sweeps.sweep_command import make_sweep_parser

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *(
        page
        for page in sorted((ROOT / "docs").rglob("*.md"))
        # commands of earlier commits, which these two pages say
        if page.name not in {"LOG.md", "first_world.md"}
    ),
]
BROUGHT = {
    "outputs/DATE/TIME": "a run of the reader's",
    "HOST:PORT": "a Ray cluster of the reader's",
    "model.path=FOLDER": "a model of the reader's",
    "model=smollm2_135m": "a model that make smollm2 downloads",
    "fleet.profiles=profiles": "a device profile of the reader's",
}


def lines_of(page: Path) -> list[str]:
    """The lines of a page's blocks of code, those that go on in the next line joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def commands() -> list[tuple[str, str]]:
    """Page and text of every run, sweep and search in a block of code."""
    return sorted(
        {
            (str(page.relative_to(ROOT)), re.sub(r"\s+#.*", "", line))
            for page in PAGES
            for line in lines_of(page)
            if re.match(r"(\w+=\S+ +)?((fleettune|make) run|fleettune (sweep|search))\b", line)
        }
    )


def brought(command: str) -> str | None:
    return next((reason for name, reason in BROUGHT.items() if name in command), None)


def overrides_of(command: str) -> list[str]:
    words = shlex.split(command)
    if "make" in words:
        given = [word for word in words if word.startswith("ARGS=")]
        return shlex.split(given[0].removeprefix("ARGS=")) if given else []
    given = words[words.index("fleettune") + 2 :]
    if "sweep" in words:
        return ["-m", *make_sweep_parser().parse_known_args(given)[1]]
    if "search" in words:
        shared, space = read_space(make_search_parser().parse_known_args(given)[1])
        return [*shared, *format_point(next(list_corners(space)))]
    return given


def test_the_pages_have_commands() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_of_a_page_is_a_run_that_can_begin(
    page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del page
    overrides = overrides_of(command)
    if reason := brought(command):
        pytest.skip(f"needs {reason}")
    if "docs/example_policy" in command:
        monkeypatch.syspath_prepend(str(ROOT / "docs" / "example_policy"))
        monkeypatch.chdir(ROOT)
        for name in ("thrifty", "shortest"):
            # put back afterwards, so that no later test finds the example without its path
            monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
    text = {"user_id": 1, "order": 0, "question": "how was it?", "response": "fine, thank you"}
    rows = [{**text, "user_id": user, "order": order} for user in range(30) for order in range(12)]
    file = tmp_path / "exchanges.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    overrides = [word.replace("exchanges.jsonl", str(file)) for word in overrides]
    words = tuple(word for word in overrides if word != "-m")
    points = list_points(words) if "-m" in overrides else [words]
    # the first and the last run of a sweep: 24 would take 12 s
    assert all(check_all(point, sweep=False) for point in {points[0], points[-1]})


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_of_a_page_is_one_of_fleettunes(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {
        found[1]
        for line in lines_of(page)
        if (found := re.match(r"(?:\w+=\S+ +)?fleettune (\w+)", line))
    }
    with pytest.raises(SystemExit):
        main(["--help"])
    known = set(re.findall(r"^ {4}(\w+)", capsys.readouterr().out, re.M))
    assert named - known == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
