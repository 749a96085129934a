"""Catalogues of text: whose text it is that entries are tuned and asked on."""

from __future__ import annotations

from pathlib import Path

from strategies.catalogue import CorporaCatalogue, Explain
from tests.fleettune.data.test_style_corpora import corpora
from tests.strategies.catalogue.test_entries import tools


def test_entries_and_questions_are_of_text_that_no_user_says(tmp_path: Path) -> None:
    text = corpora(tmp_path)
    how = CorporaCatalogue(text=text, corpus=8, explain=Explain(questions=6))
    asked = {exchange.question for part in how.corpora(3).values() for exchange in part}
    asked |= set(how.draw_questions(tools(tmp_path)))
    for name in ("terse", "wordy"):
        assert not asked & {question for question, _ in text.read(name, users=True)}
