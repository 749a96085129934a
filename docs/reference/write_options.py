"""Writes docs/reference/options.md from the comments of conf/.

    python docs/reference/write_options.py

A file of conf/ begins with its summary: comment lines up to an empty one, ``#``.
"""

from __future__ import annotations

import re
from pathlib import Path

from simulations.experiment.option_groups import read_groups

CONF = Path(__file__).parents[2] / "conf"
PAGE = Path(__file__).with_name("options.md")
BESIDE = {
    "hardware": "Device profiles: the shares of `fleet.mix` name them. `fleettune devices` prints "
    "their numbers.",
    "lexicons": "Word lists for `selection=quality`: the key `lexicon` names one.",
    "questions": "Questions of a catalogue without text of its own: `catalogue.questions` names a "
    "list.",
}
"""Folders of conf/ of which no option is chosen, and what names their files instead."""
INTRODUCTION = """\
# Options and keys

A run takes one option of every group: `fleettune run GROUP=OPTION`. It takes a value for any key:
`fleettune run KEY=VALUE`. An option is a file: `link=lte` is `conf/link/lte.yaml`. The file
explains the option's own keys. `fleettune run --cfg job` prints all keys with their values.

This page is written by `docs/reference/write_options.py` from the comments of these files. Change
a comment, run it, and do not edit the page.
"""
_KEY = re.compile(r"^( *)(\w+):(?: (.+?))?(?: # (.+))?$")


def format_page() -> str:
    """Returns the page as Markdown.

    Raises:
        ValueError: If a file of conf/ has no comment at its top, or a key has none.
    """
    parts = [INTRODUCTION]
    for group in read_groups():
        named = "`model` names it" if "$" in group.default else f"`{group.default}`"
        said = f"{group.meaning[0].upper()}{group.meaning[1:]}. Default: {named}."
        parts.append(f"## {group.name}\n\n{said}\n\n{_options(group.name)}")
    parts += [f"## {name}\n\n{said}\n\n{_options(name)}" for name, said in BESIDE.items()]
    keys = _table(("key", "default", "what it is"), _keys())
    parts.append(f"## Keys of conf/config.yaml\n\n{keys}")
    return "\n".join(parts)


def _options(folder: str) -> str:
    files = sorted(file for kind in ("*.yaml", "*.txt") for file in (CONF / folder).glob(kind))
    return _table(("option", "what it is"), [(f"`{file.stem}`", _summary(file)) for file in files])


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _summary(file: Path) -> str:
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8").removeprefix("# @package _global_\n").splitlines():
        if not line.startswith("# "):
            break
        lines.append(line[2:].strip())
    if not lines:
        raise ValueError(f"{file} must begin with a comment that says what it is, and has none")
    return _cell(" ".join(lines))


def _keys() -> list[tuple[str, ...]]:
    """Returns name, default and comment of every key between the defaults list and ``hydra``."""
    text = (CONF / "config.yaml").read_text(encoding="utf-8")
    rows: list[tuple[str, ...]] = []
    path: list[str] = []
    for line in text.partition("\n\n")[2].partition("\nhydra:")[0].split("\n"):
        if not (found := _KEY.match(line)):
            continue
        indent, name, value, comment = found.groups()
        path = [*path[: len(indent) // 2], name]
        if value is None:
            continue
        if comment is None:
            raise ValueError(f"{'.'.join(path)} of conf/config.yaml must have a comment")
        rows.append((f"`{'.'.join(path)}`", f"`{value}`", _cell(comment)))
    return rows


def _cell(text: str) -> str:
    """Returns a comment as a cell, with its citations of pages as links."""
    linked = re.sub(r"docs/([\w/]+\.md)(#[\w-]+)?", r"[\1](../\1\2)", text)
    return linked.replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(format_page(), encoding="utf-8")
