"""What a reader of a page sees: its text, the cells of its tables, its charts."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

_BREAKS = [
    "body",
    "br",
    "caption",
    "dd",
    "details",
    "div",
    "figcaption",
    "figure",
    "h1",
    "h2",
    "h3",
    "li",
    "p",
    "pre",
    "summary",
    "table",
    "td",
    "th",
    "tr",
]
_LIBRARY = re.compile(r'<script type="text/plain" id="plotly">([^<]*)</script>')


@dataclass(kw_only=True)
class Page:
    """A page as it is read.

    Attributes:
        text: Everything that is shown, blocks parted by single spaces.
        headings: The texts of headings and of what is folded.
        tables: Every table's rows, each cell by the heading of its column.
        charts: Plotly's figures by key.
        attributes: Every attribute as (element, name, value).
        own: The page without the Plotly library that stands in it.
    """

    text: str = ""
    headings: list[str] = field(default_factory=list[str])
    tables: list[list[dict[str, str]]] = field(default_factory=list[list[dict[str, str]]])
    charts: dict[str, Any] = field(default_factory=dict[str, Any])
    attributes: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    own: str = ""

    def table_with(self, *columns: str) -> list[dict[str, str]]:
        """The one table that has these columns."""
        (found,) = (table for table in self.tables if table and {*columns} <= {*table[0]})
        return found

    def cells(self, heading: str) -> list[str]:
        """All cells of all columns of a heading, as they are read."""
        return [row[heading] for table in self.tables for row in table if heading in row]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self.words: list[str] = []
        self.script: list[str] = []
        self.begun: dict[str, int] = {}
        self.lines: list[list[str]] = []
        self.hidden = 0
        self.chart = ""
        self.is_figure = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in _BREAKS:
            self.words.append(" ")
        self.begun[tag] = len(self.words)
        given = dict(attrs)
        if given.get("class") == "chart":
            self.chart = given["id"] or ""
        if tag in ("script", "style"):
            self.hidden += 1
            self.is_figure = given.get("type") == "application/json"
            self.script = []
        elif tag == "table":
            self.lines = []
        elif tag == "tr":
            self.lines.append([])

    def handle_endtag(self, tag: str) -> None:
        said = " ".join("".join(self.words[self.begun.get(tag, 0) :]).split())
        if tag in _BREAKS:
            self.words.append(" ")
        if tag in ("script", "style"):
            self.hidden -= 1
            if self.is_figure:
                self.page.charts[self.chart] = json.loads("".join(self.script))
        elif tag in ("h1", "h2", "h3", "summary"):
            self.page.headings.append(said)
        elif tag in ("td", "th"):
            self.lines[-1].append(said)
        elif tag == "table":
            columns, *rows = self.lines
            self.page.tables.append([dict(zip(columns, row, strict=True)) for row in rows])

    def handle_data(self, data: str) -> None:
        (self.script if self.hidden else self.words).append(data)


def read_page(path: Path) -> Page:
    """Reads a page, which holds the Plotly library once."""
    whole = path.read_text(encoding="utf-8")
    (packed,) = _LIBRARY.findall(whole)
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    reader = _Reader()
    reader.page.own = whole.replace(packed, "")
    reader.feed(reader.page.own)
    reader.page.text = " ".join("".join(reader.words).split())
    return reader.page
