"""Pages: a template of `templates/` and values become one self-contained HTML file.

A page loads nothing: the Plotly library stands in it once, compressed, and fonts are the system's.
It holds no time stamp and no random id, so equal values give equal bytes. Every text is escaped
where it is written.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs] - it has none

from fleettune.whole_files import write_whole
from simulations.report.terms import explain_terms, list_linked_terms

Row = Mapping[str, str]
"""A line of a table: the text of every cell by the heading of its column."""

_BRACKETS = re.compile(r" (\([^()]*\)|\[[^\[\]]*\])")
_BOUNDS = re.compile(r"(.*) (\[[^\]]*\]|\([^)]* to [^)]*\))", re.DOTALL)
_SECTION = re.compile(r"<h2>(.*?)</h2>")


def write_page(template: str, path: Path, values: Mapping[str, object]) -> Path:
    """Fills a template of `templates/` with values, writes the page to a path and returns the path.

    Raises:
        jinja2.UndefinedError: If the template names a value that is not given.
    """
    page = _load_templates().get_template(template)
    write_whole(path, page.render(values, plotly=_pack_plotly()).encode())
    return path


def split_bounds(text: str) -> tuple[str, str]:
    """Splits "0.5 [0.4, 0.6]" or "5 J (4 to 6)" into its value and its bounds, "" without any."""
    found = _BOUNDS.fullmatch(text)
    return (found[1], found[2]) if found else (text, "")


def quieten_bounds(text: str) -> Markup:
    """Returns a sentence, escaped, in which what stands in brackets is marked as small."""
    return Markup(_BRACKETS.sub(r" <small>\1</small>", str(escape(text))))


def list_sections(html: str) -> list[Markup]:
    """Returns the titles of a page's sections, in their order."""
    return [Markup(title) for title in _SECTION.findall(html)]


def number_sections(html: str) -> Markup:
    """Returns the page with an anchor at each section: ``section-1`` and so on."""
    parts = _SECTION.split(html)
    titles = enumerate(parts[1::2], 1)
    anchored = (f'<h2 id="section-{place}">{title}</h2>' for place, title in titles)
    pairs = zip(anchored, parts[2::2], strict=True)
    return Markup(parts[0] + "".join(f"{heading}{text}" for heading, text in pairs))


@cache
def _pack_plotly() -> str:
    """Returns Plotly's library as base64 of gzip: 1.9 MB of a page instead of 4.8 MB."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


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
    own = {
        "count": "{:,}".format,
        "explain": explain_terms,
        "linked_terms": list_linked_terms,
        "number_sections": number_sections,
        "quieten_bounds": quieten_bounds,
        "sections": list_sections,
        "split_bounds": split_bounds,
    }
    made.filters.update(own)  # pyright: ignore[reportUnknownMemberType] - jinja2 does not say
    made.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return made
