"""What code and configuration cite stands on the page of methods."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHODS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
ROOMS = ("fleettune", "clients", "strategies", "simulations")


def slug(heading: str) -> str:
    """The anchor that a heading of Markdown gets."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\- ]", "", heading.lower()).strip())


ANCHORS = {slug(heading) for heading in re.findall(r"^#+ (.+)$", METHODS, re.MULTILINE)}


def citing_files() -> list[Path]:
    places = (*ROOMS, "conf", "benchmarks", "tests", "docs")
    found = [
        f for place in places for kind in ("*.py", "*.yaml") for f in (ROOT / place).rglob(kind)
    ]
    return sorted(found)


def test_every_citation_of_a_method_names_a_heading_of_the_page() -> None:
    cited = {
        (str(file.relative_to(ROOT)), anchor)
        for file in citing_files()
        for anchor in re.findall(r"docs/methods\.md#([\w-]+)", file.read_text(encoding="utf-8"))
    }
    assert len(cited) > 50
    assert {place for place in cited if place[1] not in ANCHORS} == set()


def test_every_heading_within_the_page_that_is_linked_exists() -> None:
    assert set(re.findall(r"\]\(#([\w-]+)\)", METHODS)) <= ANCHORS


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(rf"`((?:{'|'.join(ROOMS)})\.[\w.]+)`", METHODS)))
)
def test_a_module_that_the_page_names_exists(name: str) -> None:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return
    pytest.fail(f"{name} cannot be imported")
