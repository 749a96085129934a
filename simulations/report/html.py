"""Markup: the pieces of a page as HTML, with every text escaped."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from simulations.report.plots import Figure

_BOUNDS = re.compile(r" (\[[^\]]*\]|\([^)]* to [^)]*\))$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One figure of the page, with its title and what to read in it."""

    key: str
    title: str
    caption: str
    figure: Figure


def chart(one: Chart) -> str:
    """Returns a chart that Plotly draws where the page is opened."""
    figure = json.dumps(one.figure, allow_nan=False).replace("<", "\\u003c")
    return f"""<figure>
<h2>{html.escape(one.title)}</h2>
<figcaption>{html.escape(one.caption)}</figcaption>
<div class="scroll"><div class="chart" id="{one.key}"></div></div>
<script>Plotly.newPlot("{one.key}",
Object.assign({figure}, {{config: {{responsive: true, displaylogo: false}}}}));</script>
</figure>"""


def scrolled(inner: str) -> str:
    """Returns markup that scrolls sideways on a narrow screen."""
    return f'<div class="scroll">{inner}</div>'


def details(title: str, body: str) -> str:
    """Returns markup folded under a title."""
    return f"<details><summary>{html.escape(title)}</summary>{body}</details>"


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns an HTML table of text cells."""
    return table(columns, rows, [""] * len(rows))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], before: Sequence[str]) -> str:
    """Returns an HTML table; `before` is markup put ahead of the first cell of each row."""
    head = "".join(f"<th>{_cell(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><td>{mark}" + "</td><td>".join(_cell(cell) for cell in row) + "</td></tr>\n"
        for mark, row in zip(before, rows, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _cell(text: str) -> str:
    """Returns escaped text with a trailing [interval] or (range) on a second, quieter line."""
    return _BOUNDS.sub(r"<br><small>\1</small>", html.escape(text))
