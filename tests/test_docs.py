"""What the pages say about files, names and headings holds; citations of methods resolve."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import sys
from functools import cache
from pathlib import Path
from typing import cast

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WINGS = ("clients", "strategies", "simulations", "fleettune")
FOLDERS = (*WINGS, "conf", "docs", "tests", "benchmarks")
OPTIONS = "docs/reference/options.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = tuple(
    str(page.relative_to(ROOT))
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if page.name != "LOG.md"  # tells what was, so its paths may be gone
)
SOURCE = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./*-]*\w\.(?:py|yaml|md|csv)\b")
"""A path of a file of this repository, wherever it stands in a text."""


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """The page without fenced blocks of code."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def spans_of(page: str) -> set[str]:
    """What stands between backticks."""
    return set(re.findall(r"`([^`\n]+)`", prose_of(page)))


def slug(heading: str) -> str:
    """The anchor that a heading of Markdown gets."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\- ]", "", heading.lower()).strip())


@cache
def anchors_of(page: Path) -> frozenset[str]:
    prose = prose_of(str(page.relative_to(ROOT)))
    return frozenset(slug(found) for found in re.findall(r"^#+ (.+)$", prose, re.MULTILINE))


def links_of(page: str) -> list[tuple[str, Path, str]]:
    """Text, file and anchor of every link of a page that stays in the repository."""
    found: list[tuple[str, Path, str]] = []
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose_of(page)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            place = ROOT / page
            found.append((text, (place.parent / path).resolve() if path else place, anchor))
    return found


@cache
def defined_in(file: Path) -> frozenset[str]:
    """Names that a module defines: functions, classes, their methods and fields, constants."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        names |= {f"{own}" for own in _names(node)}
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{own}" for child in node.body for own in _names(child)}
    return frozenset(names)


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def importable(name: str) -> bool:
    """Whether a dotted name is a module, or something that a module holds."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            # a field without a default is no attribute of its class
            fields = getattr(found, "__dataclass_fields__", {})
            if not hasattr(found, part) and part not in fields:
                return False
            found = getattr(found, part, None)
        return True
    return False


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_heading_that_exist(page: str) -> None:
    links = links_of(page)
    assert {str(file) for _, file, _ in links if not file.exists()} == set()
    broken = [
        (file.name, anchor)
        for _, file, anchor in links
        if anchor and file.suffix == ".md" and anchor not in anchors_of(file)
    ]
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_a_link_that_is_called_after_a_definition_leads_to_the_module_that_has_it(
    page: str,
) -> None:
    named = [
        (name, file)
        for text, file, _ in links_of(page)
        if file.suffix == ".py"
        for name in re.findall(r"^`([\w.]+)`$", text)
    ]
    missing = {f"{file.name}: {name}" for name, file in named if name not in defined_in(file)}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_path_of_the_repository_that_a_page_names_exists(page: str) -> None:
    in_backticks = {
        span for span in spans_of(page) if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./*-]*", span)
    }
    paths = set(SOURCE.findall(text_of(page))) | in_backticks
    assert {path for path in paths if not any(ROOT.glob(path.rstrip("/")))} == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_dotted_name_of_our_code_that_a_page_names_exists(page: str) -> None:
    dotted = {
        span for span in spans_of(page) if re.fullmatch(rf"(?:{'|'.join(WINGS)})(?:\.\w+)+", span)
    }
    assert {name for name in dotted if not importable(name)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_a_page_chooses_exists(page: str) -> None:
    folders = (ROOT / "conf", ROOT / "docs" / "example_policy" / "conf")
    groups = "|".join(folder.name for folder in folders[0].iterdir() if folder.is_dir())
    chosen = {
        f"{group}/{option}.yaml"
        for group, options in re.findall(
            rf"(?<![\w.])({groups})=([a-z]\w*(?:,[a-z]\w*)*)", text_of(page)
        )
        for option in options.split(",")
    }
    gone = {file for file in chosen if not any((folder / file).is_file() for folder in folders)}
    assert gone == set()


WRITTEN = {
    "options": OPTIONS,
    "glossary": "docs/glossary.md",
    "columns": "docs/reference/columns.md",
    "commands": "docs/reference/commands.md",
}
"""Pages by the name of the script of docs/reference/ that writes them."""


@pytest.mark.parametrize("name", WRITTEN)
def test_a_page_that_a_script_writes_is_what_it_would_write_now(name: str) -> None:
    if name == "commands" and sys.version_info >= (3, 13):
        pytest.skip("argparse writes its help otherwise from Python 3.13 on")
    script = ROOT / "docs" / "reference" / f"write_{name}.py"
    page = cast(str, runpy.run_path(str(script))["format_page"]())
    told = f"write it anew: python {script.relative_to(ROOT)}"
    assert text_of(WRITTEN[name]) == page, told


def test_the_page_of_options_has_a_row_for_every_file_of_conf_and_for_every_key() -> None:
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", text_of(OPTIONS), re.MULTILINE))
    rows = {
        name: set(re.findall(r"^\| `([\w.]+)` \| \S", text, re.MULTILINE))
        for name, text in sections.items()
    }
    keys = rows.pop("Keys of conf/config.yaml")
    files = [*(ROOT / "conf").glob("*/*.yaml"), *(ROOT / "conf").glob("*/*.txt")]
    assert {(name, option) for name, options in rows.items() for option in options} == {
        (file.parent.name, file.stem) for file in files
    }
    top = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    own = {name: value for name, value in top.items() if name not in ("defaults", "hydra")}
    assert keys == {
        key
        for name, value in own.items()
        for key in ([f"{name}.{inner}" for inner in value] if isinstance(value, dict) else [name])
    }


def test_the_architecture_takes_at_most_200_lines() -> None:
    assert len(text_of("docs/architecture.md").splitlines()) <= 200


def rooms() -> list[str]:
    found = [file.parent for wing in WINGS for file in (ROOT / wing).rglob("*/__init__.py")]
    return sorted(f"{room.relative_to(ROOT)}/" for room in found)


def loose_modules() -> list[str]:
    """Modules that stand in a wing and in no room."""
    found = [file for wing in WINGS for file in (ROOT / wing).glob("*.py")]
    return sorted({file.name for file in found} - {"__init__.py"})


@pytest.mark.parametrize("name", loose_modules())
def test_the_architecture_names_every_module_that_stands_in_no_room(name: str) -> None:
    assert f"`{name}`" in text_of("docs/architecture.md")


@pytest.mark.parametrize("room", rooms())
def test_the_architecture_names_every_room(room: str) -> None:
    """Write into docs/architecture.md what stands in a new room and what one may do there."""
    assert f"`{room}`" in text_of("docs/architecture.md")


def citing_files() -> list[Path]:
    places = (*WINGS, "conf", "benchmarks", "tests", "docs")
    found = [
        f for place in places for kind in ("*.py", "*.yaml") for f in (ROOT / place).rglob(kind)
    ]
    return sorted(found)


def test_every_citation_of_a_page_in_code_names_a_heading_of_it() -> None:
    cited = {
        (str(file.relative_to(ROOT)), page, anchor)
        for file in citing_files()
        for page, anchor in re.findall(
            r"(docs/[\w/]+\.md)#([\w-]+)", file.read_text(encoding="utf-8")
        )
    }
    assert len(cited) > 50
    assert {place for place in cited if place[2] not in anchors_of(ROOT / place[1])} == set()


@pytest.mark.parametrize("folder", [*WINGS, "conf", "docs", "benchmarks"])
def test_every_path_and_dotted_name_that_a_comment_or_docstring_mentions_exists(
    folder: str,
) -> None:
    texts = {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
        for file in citing_files()
        if file.is_relative_to(ROOT / folder)
    }
    paths = {(file, path) for file, text in texts.items() for path in SOURCE.findall(text)}
    names = {
        (file, name)
        for file, text in texts.items()
        for name in re.findall(rf"`((?:{'|'.join(WINGS)})(?:\.\w+)+)`", text)
    }
    assert {found for found in paths if not any(ROOT.glob(found[1]))} == set()
    assert {found for found in names if not importable(found[1])} == set()


def listed(contents: object) -> list[str]:
    """The files that a table of contents of the site names."""
    if isinstance(contents, str):
        return [contents]
    parts = contents.values() if isinstance(contents, dict) else cast(list[object], contents)
    return [file for part in parts for file in listed(part)]


def test_the_contents_of_the_site_list_every_page_once() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed(site["nav"])) == sorted(pages)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "results").glob("*.md")), ids=str)
def test_a_page_of_results_counts_the_verdicts_of_its_claims(page: Path) -> None:
    """The tables are those of a study's study.md; what it says in words is written by hand."""
    text = page.read_text(encoding="utf-8")
    verdicts = re.findall(r"^\| \w+ \| .+ \| (holds|does not hold|not shown.*) \|$", text, re.M)
    held, asked = map(int, re.findall(r"(\d+) of (\d+) claims hold", text)[0])
    assert (verdicts.count("holds"), len(verdicts)) == (held, asked)


def test_every_picture_is_small_and_stands_on_a_page() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").glob("*.png"))
    shown = {file for page in PAGES for _, file, _ in links_of(page)}
    assert len(pictures) >= 8
    assert [file.name for file in pictures if file.stat().st_size > 150_000] == []
    assert [file.name for file in pictures if file not in shown] == []
