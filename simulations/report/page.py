"""Pages: a template of `templates/` and values become one self-contained HTML file.

A page loads nothing: the Plotly library stands in it once, fonts are the system's. It holds no time
stamp and no random id, so equal values give equal bytes. Every text is escaped where it is
written; Plotly's own library is the one thing that is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs] - it has none

from fleettune.whole_files import write_whole

Row = Mapping[str, str]
"""A line of a table: the text of every cell by the heading of its column."""

_BRACKETS = re.compile(r" (\([^()]*\)|\[[^\[\]]*\])")
_BOUNDS = re.compile(r"(.*) (\[[^\]]*\]|\([^)]* to [^)]*\))", re.DOTALL)


def write_page(template: str, path: Path, values: Mapping[str, object]) -> Path:
    """Fills a template of `templates/` with values, writes the page to a path and returns the path.

    Raises:
        jinja2.UndefinedError: If the template names a value that is not given.
    """
    page = _load_templates().get_template(template)
    write_whole(path, page.render(values, plotly=Markup(get_plotlyjs())).encode())
    return path


def split_bounds(text: str) -> tuple[str, str]:
    """Splits "0.5 [0.4, 0.6]" or "5 J (4 to 6)" into its value and its bounds, "" without any."""
    found = _BOUNDS.fullmatch(text)
    return (found[1], found[2]) if found else (text, "")


def quieten_bounds(text: str) -> Markup:
    """Returns a sentence, escaped, in which what stands in brackets is marked as small."""
    return Markup(_BRACKETS.sub(r" <small>\1</small>", str(escape(text))))


@cache
def _load_templates() -> Environment:
    made = Environment(
        loader=PackageLoader("simulations.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    own = {"count": "{:,}".format, "split_bounds": split_bounds, "quieten_bounds": quieten_bounds}
    made.filters.update(own)  # pyright: ignore[reportUnknownMemberType] - jinja2 does not say
    made.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return made
