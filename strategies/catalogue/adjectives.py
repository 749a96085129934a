"""Adjectives of style: what a model may propose when it is asked for the style of an answer.

Plain English words, no list of anybody's; those of XPerT's styles are among them (METHODS A4), none
of the generator's requests is. The words that have measures (`fleettune.catalogue.style_words`) come first.
"""

from __future__ import annotations

from fleettune.catalogue.style_words import STYLE_WORDS

_PAIRS = """
formal informal, polite rude, friendly unfriendly, cheerful gloomy, serious playful,
confident hesitant, elaborate concise, wordy laconic, detailed sketchy, informative uninformative,
technical elementary, scholarly colloquial, poetic prosaic, emotional neutral, enthusiastic bored,
gentle harsh, clear vague, lively dull, affectionate distant, eager reluctant, modest boastful,
calm excited, humble arrogant, persuasive unpersuasive, honest evasive, modern archaic
"""
_WITHOUT_OPPOSITE = "sassy sarcastic ironic dramatic conversational blunt"


def _both_ways(word: str, opposite: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (word, opposite), (opposite, word)


_listed = [(word.word, word.opposite) for word in STYLE_WORDS]
_more = [tuple(pair.split()) for pair in _PAIRS.split(",")]
ADJECTIVES: tuple[tuple[str, str], ...] = (
    *(side for word, opposite in (*_listed, *_more) for side in _both_ways(word, opposite)),
    *((word, f"less {word}") for word in _WITHOUT_OPPOSITE.split()),
)
"""Every word with what little of it is called, in either direction where that has a word."""
