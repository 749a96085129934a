"""Writes docs/glossary.md from the words of `simulations.report.terms`.

python docs/reference/write_glossary.py
"""

from __future__ import annotations

from pathlib import Path

from simulations.report.terms import GLOSSARY

PAGE = Path(__file__).parents[1] / "glossary.md"
HEAD = """\
# Glossary

A run's page explains the same words where they stand. This page is written by
`docs/reference/write_glossary.py`.

| word | meaning |
|---|---|
"""


def format_page() -> str:
    """Returns the page as Markdown."""
    words = sorted(GLOSSARY, key=str.lower)
    return HEAD + "".join(f"| {word} | {GLOSSARY[word]} |\n" for word in words)


if __name__ == "__main__":
    PAGE.write_text(format_page(), encoding="utf-8")
