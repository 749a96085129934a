"""Writes docs/reference/commands.md from the help of every command.

python docs/reference/write_commands.py
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

from simulations.cli import main

PAGE = Path(__file__).with_name("commands.md")
COLUMNS = "90"
HEAD = """\
# Commands

`python -m simulations` is the same as `fleettune`. A command ends with 0 if it is done, with 2 if
what it was given is wrong, and says in one sentence what to change. `doctor` ends with 1 on a
machine that lacks something. This page is written by `docs/reference/write_commands.py`.
"""


def format_page() -> str:
    """Returns the page as Markdown: the help of every command, as wide as `COLUMNS`."""
    top = _read_help()
    names = re.findall(r"^    (\w+)", top.partition("positional arguments:")[2], re.MULTILINE)
    parts = [("fleettune", top), *((f"fleettune {name}", _read_help(name)) for name in names)]
    return HEAD + "".join(f"\n## {title}\n\n```text\n{text}\n```\n" for title, text in parts)


def _read_help(*command: str) -> str:
    before, told = os.environ.get("COLUMNS"), io.StringIO()
    os.environ["COLUMNS"] = COLUMNS
    try:
        with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
            main([*command, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "\n".join(line.rstrip() for line in told.getvalue().strip().splitlines())


if __name__ == "__main__":
    PAGE.write_text(format_page(), encoding="utf-8")
