"""Tables of plain text: Markdown, and LaTeX without any package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulations.report.page import Row

_LATEX: Mapping[str, str] = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_ESCAPED = str.maketrans(dict(_LATEX))


def format_markdown(rows: Sequence[Row]) -> list[str]:
    """Returns the lines of a table of Markdown, whose cells' bars are escaped; a word for none."""
    if not rows:
        return ["none"]
    cells = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


def format_latex(rows: Sequence[Row]) -> list[str]:
    """Returns the lines of a ``tabular`` of LaTeX, every sign of a cell escaped.

    Args:
        rows: The rows, at least one; the first one names the columns.
    """
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    heading, *lines = [
        f"{' & '.join(cell.translate(_ESCAPED) for cell in row)} \\\\" for row in cells
    ]
    columns = "l" + "r" * (len(rows[0]) - 1)
    body = [heading, r"\hline", *lines]
    return [f"\\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"]
