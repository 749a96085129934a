"""Finds the lexicons of a run by name or file, and derives new ones from a labelled corpus.

``lexicon=NAME`` of the configuration names a file of conf/lexicons, ``lexicon=FILE.txt`` one of the
user's. Its words travel to the devices inside the policy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from omegaconf import OmegaConf

from clients.selection.lexicon import Lexicon, lexicon_text, read_lexicons, words_of
from fleettune.data.json_lines import read_lines

RESOLVER = "words"
"""``${words:NAME}`` in a configuration stands for the lexicons of that name or file."""

FOLDER = files("conf") / "lexicons"
PRIOR_WORDS = 500.0
"""Words that the prior counts as: it weighs as much as a text of that length."""
LEAST_Z = 1.96


def find_lexicons(name: str) -> tuple[Lexicon, ...]:
    """Returns the lexicons of a name in conf/lexicons or of a file.

    Raises:
        ValueError: If there is no such file or it breaks the format.
    """
    known = sorted(item.name.removesuffix(".txt") for item in FOLDER.iterdir())
    file = FOLDER / f"{name}.txt" if name in known else Path(name)
    if not file.is_file():
        raise ValueError(f"lexicon must be one of {known} or an existing file, got {name!r}")
    try:
        return read_lexicons(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"lexicon {name!r}: {error}") from error


def register_resolver() -> None:
    """Makes ``${words:NAME}`` known to OmegaConf."""
    OmegaConf.register_new_resolver(RESOLVER, _resolved, replace=True)


def _resolved(name: object) -> list[dict[str, str]]:
    return [asdict(item) for item in find_lexicons(str(name))]


def derive_lexicons(
    rows: Sequence[tuple[str, str]], words: int, prior: float = PRIOR_WORDS
) -> tuple[Lexicon, ...]:
    """Returns each label's most characteristic words.

    Weighted log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, eqs. 15,
    16, 22): every label's counts against those of all others, the prior in proportion to the whole
    corpus, words ordered by z.

    Args:
        rows: Label and text of every document.
        words: Words per label at most; only those of z > 1.96 are taken.
        prior: Words that the prior counts as.

    Raises:
        ValueError: If there are less than two labels, or one has no characteristic word.
    """
    counts: dict[str, Counter[str]] = {}
    for label, text in rows:
        counts.setdefault(label, Counter()).update(words_of(text))
    if len(counts) < 2:
        raise ValueError(f"a corpus must have at least two labels, got {sorted(counts)}")
    whole = sum(counts.values(), Counter[str]())
    return tuple(_derived(label, counts[label], whole, words, prior) for label in sorted(counts))


def _derived(
    label: str, own: Counter[str], whole: Counter[str], words: int, prior: float
) -> Lexicon:
    scores = compute_log_odds(own, whole, prior)
    ranked = sorted((-z, word) for word, z in scores.items() if z > LEAST_Z)
    best = [word for _, word in ranked]
    if not best:
        raise ValueError(
            f"label {label!r} has no word of its own: z of none is above {LEAST_Z}; give more text"
        )
    return Lexicon(domain=_domain(label), words=" ".join(best[:words]))


def compute_log_odds(own: Counter[str], whole: Counter[str], prior: float) -> dict[str, float]:
    """Returns z of every word's log-odds in one part of a corpus against the rest.

    Args:
        own: Counts of the part.
        whole: Counts of the whole corpus.
        prior: Words that the prior counts as.
    """
    total, inside = whole.total(), own.total()
    outside = total - inside
    found: dict[str, float] = {}
    for word, everywhere in whole.items():
        alpha = prior * everywhere / total
        here, there = own[word] + alpha, everywhere - own[word] + alpha
        # a word that is all there is has no odds
        rest_here, rest_there = inside + prior - here, outside + prior - there
        if rest_here <= 0 or rest_there <= 0:
            continue
        delta = math.log(here / rest_here) - math.log(there / rest_there)
        found[word] = delta / math.sqrt(1 / here + 1 / there)
    return found


def _domain(label: str) -> str:
    return "_".join(words_of(label.replace("_", " ")))[:32]


def write_lexicons(corpus: Path, label: str, texts: Sequence[str], words: int, into: Path) -> None:
    """Derives lexicons from a JSON Lines file and writes them.

    Args:
        corpus: One object per line.
        label: The field that holds a document's label.
        texts: The fields that hold its text.
        words: Words per label.
        into: The file to write; it must not exist.

    Raises:
        ValueError: If a line is no object with these fields, or `derive_lexicons` refuses.
    """
    if into.exists():
        raise ValueError(f"-o must name a new file, {str(into)!r} exists")
    if words < 1:
        raise ValueError(f"--words must be >= 1, got {words}")
    rows = [_row(row, number, label, texts) for number, row in read_lines(str(corpus))]
    told = f"Derived from {corpus.name}, {label}: weighted log-odds, informative Dirichlet prior."
    into.write_text(lexicon_text(derive_lexicons(rows, words), told), encoding="utf-8")


def _row(
    named: Mapping[str, object], number: int, label: str, texts: Sequence[str]
) -> tuple[str, str]:
    found = [named.get(field) for field in (label, *texts)]
    for field, value in zip((label, *texts), found, strict=True):
        if not isinstance(value, str):
            raise ValueError(f"line {number} must have text in {field!r}, got {value!r}")
    if not _domain(str(found[0])):
        raise ValueError(f"line {number}: label {found[0]!r} must hold a word")
    return str(found[0]), " ".join(map(str, found[1:]))
