"""Words of the product are explained where they stand, once, and nothing else is touched."""

from __future__ import annotations

import re

import pytest
from markupsafe import Markup

from simulations.report.terms import GLOSSARY, explain_terms, find_term, list_linked_terms


def links(html: str) -> list[str]:
    return re.findall(r'<a class="term" href="#term-([\w-]+)"', html)


def test_a_word_is_a_link_where_it_first_stands() -> None:
    said = explain_terms("Arms of a null world: every arm lives in one world.")
    assert links(said) == ["arm", "null-world", "world"]
    assert said.striptags() == "Arms of a null world: every arm lives in one world."


@pytest.mark.parametrize("text", ["always_retune", "re-tune", "warm", "seedling"])
def test_a_part_of_another_word_is_no_word(text: str) -> None:
    assert explain_terms(text) == text


def test_text_is_escaped_and_html_is_left_as_it_is() -> None:
    assert "<b>" not in explain_terms("<b>an arm</b>")
    marked = explain_terms(Markup('<th data-arm="arm">arm</th>'))
    assert marked.startswith('<th data-arm="arm"><a class="term" href="#term-arm"')


def test_the_list_of_a_page_holds_the_words_that_it_links() -> None:
    said = explain_terms("tiers and ledgers")
    assert list_linked_terms(said) == [
        ("ledger", "ledger", GLOSSARY["ledger"]),
        ("tier", "tier", GLOSSARY["tier"]),
    ]


@pytest.mark.parametrize(
    ("written", "word"),
    [("LoRA", "LoRA"), ("Classes", "device class"), ("policies", "policy"), ("phone", None)],
)
def test_forms_of_a_word_are_the_word(written: str, word: str | None) -> None:
    assert find_term(written) == word
