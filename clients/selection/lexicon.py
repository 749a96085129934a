"""Words by domain, which tell what a text is about, and the file that holds them.

A file is plain text: ``[domain]`` on a line of its own, then words separated by blanks or line
ends; what follows a ``#`` is a comment. Words are lower case, as `words_of` finds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from textwrap import fill

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_DOMAIN = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """The words of one domain.

    Attributes:
        domain: Its name, a short lower-case word.
        words: Its words, separated by blanks.
    """

    domain: str
    words: str

    def __post_init__(self) -> None:
        if not _DOMAIN.fullmatch(self.domain):
            raise ValueError(
                f"a lexicon's domain must be a short lower-case word, got {self.domain!r}"
            )
        wrong = [word for word in self.words.split() if words_of(word) != [word]]
        if wrong or not self.words.split():
            got = repr(wrong[0]) if wrong else "none"
            raise ValueError(
                f"words of the lexicon {self.domain} must be lower-case words, got {got}"
            )


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case: letters, with apostrophes inside."""
    return _WORD.findall(text.lower())


def read_lexicons(text: str) -> tuple[Lexicon, ...]:
    """Returns the lexicons of a file's text.

    Raises:
        ValueError: If a word stands before the first domain, a domain comes twice, or a name or
            word is malformed.
    """
    found: dict[str, list[str]] = {}
    words: list[str] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        told = line.partition("#")[0].strip()
        if told.startswith("[") and told.endswith("]"):
            name = told[1:-1].strip()
            if name in found:
                raise ValueError(f"line {number}: the domain {name} comes twice")
            words = found[name] = []
        elif told and words is None:
            raise ValueError(f"line {number} must be a [domain], got {told[:40]!r}")
        elif words is not None:
            words += told.split()
    if not found:
        raise ValueError("a lexicon file must hold at least one [domain], got none")
    return tuple(
        Lexicon(domain=name, words=" ".join(dict.fromkeys(own))) for name, own in found.items()
    )


def lexicon_text(lexicons: Sequence[Lexicon], comment: str) -> str:
    """Returns lexicons as the text of a file."""
    parts = [f"# {comment}"]
    parts += [
        f"\n[{item.domain}]\n{fill(item.words, 96, break_long_words=False)}" for item in lexicons
    ]
    return "\n".join(parts) + "\n"


def count_hits(words: Sequence[str], lexicons: tuple[Lexicon, ...]) -> list[int]:
    """Returns how many of the words lie in each lexicon, repeated words counted again."""
    index = _index(lexicons)
    counts = [0] * len(lexicons)
    for word in words:
        for domain in index.get(word, ()):
            counts[domain] += 1
    return counts


@lru_cache(maxsize=16)
def _index(lexicons: tuple[Lexicon, ...]) -> Mapping[str, tuple[int, ...]]:
    index: dict[str, tuple[int, ...]] = {}
    for domain, lexicon in enumerate(lexicons):
        for word in dict.fromkeys(lexicon.words.split()):
            index[word] = (*index.get(word, ()), domain)
    return index
