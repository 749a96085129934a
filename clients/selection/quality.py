"""Quality selection: keep what is rich, on topic and new.

Source: Qin et al., DAC 2024; docs/methods.md#quality-selection-published.

Three scores per exchange, higher is better. For tokens with hidden norms a_i and p_i = a_i / sum a:

    EOE = -sum p_i log p_i / log n           evenness of the tokens' embeddings
    DSS = mean over lexicons of the share of the text's words that lie in it
    IDD = mean of 1 - cos to those held of the same dominant domain

The paper gives no p for a vector, so p follows the norms. The first token and others with outlying
norms are left out (`fleettune.cohort.score`), as one attention sink would decide the score.
Embeddings come from the middle layer, at half the joules of the paper's last one, and stay as they
were when the exchange arrived. Where nothing is defined: EOE of one token is its worst value, DSS
of no word is 0, a text without a word of any lexicon has a domain of its own, and IDD without
another exchange of the domain is 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.selection.buffer import (
    Item,
    Note,
    Reading,
    directions,
    in_time,
    stored_score,
    total_bytes,
)
from clients.selection.lexicon import Lexicon, hits, words_of
from clients.selection.rules import (
    AGAIN,
    STORED,
    Priority,
    Text,
    shrunk,
    shuffled,
    wanted,
    without,
)

EOE, DSS, IDD = "eoe", "dss", "idd"
SCORES = (EOE, DSS, IDD)
PUBLISHED, STANDARDISED = "published", "standardised"
ALL_THREE, WEIGHTED, BALANCED = "all_three", "weighted", "balanced"
MEAN, NEAREST = "mean", "nearest"
NONE, DECAY, RESCORED = "none", "decay", "rescored"
NO_DOMAIN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Keeps exchanges that beat held ones on their scores.

    Attributes:
        lexicon: Words by domain, for DSS and the dominant domain.
        scores: Which of ``eoe``, ``dss``, ``idd`` are used; all three as published.
        eoe: ``published``, or ``standardised``: exp(-(log n - H) n / (n - 1)), whose mean does not
            depend on the number of tokens n where norms spread alike.
        idd: ``mean`` dissimilarity to those of the domain as published, or that to the ``nearest``,
            which a group of many does not hide a copy in.
        rule: ``all_three``: an arrival replaces one held exchange that it beats on every score
            used, a random one among several. ``weighted``: it replaces the one of lowest weighted
            sum of scores in standard deviations, if its own is higher. ``balanced``: likewise, but
            within one domain: the one that holds most exchanges, the arrival counted. Where that
            is not the arrival's own, the lowest of it goes in any case.
        weights: One weight per score used, for ``weighted``; empty for equal ones.
        aging: ``none`` as published: a held exchange keeps the scores that it came with, and the
            buffer freezes. ``decay``: they halve every `half_life`, which follows a user who
            changes topic. ``rescored``: IDD is computed anew for every arrival, so that the first
            of a domain does not keep its 1; it does not favour a new topic.
        half_life: Exchanges of the stream in which scores halve under ``decay``.
        text: What is scored, ``dialogue`` or ``question``. In a dialogue the preferred answer
            stands for the one that was shown, whether or not the user is asked later.
        embedding: ``backbone``, the device's own model.
        vectors: ``stored`` beside the exchanges as published, for IDD; or made ``again`` whenever
            others arrive, with no byte of the quota spent on them.
    """

    lexicon: tuple[Lexicon, ...]
    scores: tuple[str, ...] = SCORES
    eoe: str = PUBLISHED
    idd: str = MEAN
    rule: str = ALL_THREE
    weights: tuple[float, ...] = ()
    aging: str = NONE
    half_life: float = 100.0
    text: str = Text.DIALOGUE
    embedding: str = "backbone"
    vectors: str = STORED

    def __post_init__(self) -> None:
        _check_choices(self)
        if not self.scores or len(set(self.scores)) < len(self.scores):
            raise ValueError(f"scores must name one to three different ones, got {self.scores}")
        if not self.lexicon and self.scores != (EOE,):
            raise ValueError("lexicon must hold at least one domain for dss and idd, got none")
        if self.weights and len(self.weights) != len(self.scores):
            raise ValueError(f"weights must be empty or one per score, got {self.weights}")
        if any(not 0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"weights must be finite and > 0, got {self.weights}")
        if not 0 < self.half_life < math.inf:
            raise ValueError(f"half_life must be finite and > 0 exchanges, got {self.half_life}")

    @property
    def embedded(self) -> str:
        """What the device embeds; nothing where lexicons alone decide."""
        if IDD in self.scores:
            return wanted(self.text, self.vectors)
        return self.text if EOE in self.scores else Text.NOTHING

    def keep(
        self,
        held: Sequence[Item],
        arrived: Sequence[Reading],
        quota_bytes: int,
        priority: Priority,
    ) -> tuple[Item, ...]:
        """Returns what is held after every arrival was compared, one by one."""
        kept = shrunk(held, quota_bytes, priority)
        for reading in sorted(arrived, key=lambda reading: reading.order):
            kept = self._offer(kept, reading, quota_bytes, priority)
        return in_time(kept)

    def _offer(
        self, held: tuple[Item, ...], reading: Reading, quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        new = scored(self, reading, held)
        lacking = total_bytes(held) + new.size_bytes - quota_bytes
        if lacking <= 0:
            return (*held, new)
        going = beaten(self, new, held, priority(reading.exchange))
        left = without(held, going, lacking)
        if total_bytes(left) + new.size_bytes > quota_bytes:
            return held
        return in_time((*left, new))


def scored(rule: Quality, reading: Reading, held: Sequence[Item]) -> Item:
    """Returns an arrival with its scores against those held, and its domain if IDD needs it."""
    words = words_of(reading.exchange.question)
    if rule.text == Text.DIALOGUE:
        words += words_of(reading.exchange.response)
    counts = hits(words, rule.lexicon)
    domain = dominant(counts)
    values: list[float] = []
    for name in rule.scores:
        if name == EOE:
            values.append(evenness(reading.entropy, reading.tokens, rule.eoe))
        elif name == DSS:
            values.append(specificity(counts, len(words)))
        else:
            group = [item.note.vector for item in held if _domain(rule, item) == domain]
            values.append(dissimilarity(reading.vector, group, rule.idd))
    uses_idd = IDD in rule.scores
    note = Note(
        vector=reading.vector if uses_idd else b"",
        lent=uses_idd and reading.lent,
        scores=(
            *map(stored_score, values),
            *([float(domain)] if uses_idd or rule.rule == BALANCED else []),
        ),
    )
    return Item(exchange=reading.exchange, note=note)


def beaten(rule: Quality, new: Item, held: Sequence[Item], number: float) -> list[Item]:
    """Returns the held items that an arrival may replace, the first to go first.

    Args:
        rule: The rule.
        new: The arrival with its scores.
        held: What is held.
        number: Random number from 0 to 1 that decides among equals.
    """
    used = len(rule.scores)
    own = np.array(new.note.scores[:used])
    others = _present(rule, new, held)
    if rule.rule == ALL_THREE:
        worse = np.flatnonzero((own > others).all(axis=1)).tolist()
        return [held[place] for place in shuffled(worse, number)]
    if rule.rule == BALANCED:
        return _crowding(rule, new, held, number)
    sums = _sums(rule, np.vstack([others, own]))
    places = shuffled(range(len(held)), number)
    lowest = sorted(places, key=lambda place: float(sums[place]))
    return [held[place] for place in lowest if sums[place] < sums[-1]]


def _crowding(rule: Quality, new: Item, held: Sequence[Item], number: float) -> list[Item]:
    every = [*held, new]
    domains = [_domain(rule, item) for item in every]
    counts = Counter(domains)
    most = max(counts.values())
    own = counts[domains[-1]] == most
    largest = domains[-1] if own else min(d for d, count in counts.items() if count == most)
    places = [place for place, domain in enumerate(domains) if domain == largest]
    used = len(rule.scores)
    present = _present(rule, new, held)
    present = np.vstack([present, new.note.scores[:used]])
    sums = dict(zip(places, _sums(rule, present[places]), strict=True))
    order = shuffled([place for place in places if place < len(held)], number)
    lowest = sorted(order, key=lambda place: float(sums[place]))
    return [every[p] for p in lowest if not own or sums[p] < sums[len(held)]]


def _sums(rule: Quality, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the weighted sums of scores in standard deviations, one per row."""
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return values @ np.array(rule.weights or (1.0,) * len(rule.scores))


def evenness(entropy: float, tokens: int, kind: str) -> float:
    """Returns EOE from an entropy in nats over a number of tokens, 0 to 1."""
    if kind == PUBLISHED:
        return entropy / math.log(tokens) if tokens > 1 else 0.0
    # log n - H is Theil's index; n / (n - 1) takes out its first-order dependence on n
    worst = 2 * math.log(2)
    return math.exp(-(math.log(tokens) - entropy) * tokens / (tokens - 1) if tokens > 1 else -worst)


def specificity(counts: Sequence[int], words: int) -> float:
    """Returns DSS from the words found in every lexicon and all words of a text."""
    return sum(counts) / (len(counts) * words) if counts and words else 0.0


def dominant(counts: Sequence[int]) -> int:
    """Returns the lexicon with most words of a text, the first among equals; -1 without any."""
    return int(np.argmax(counts)) if any(counts) else NO_DOMAIN


def dissimilarity(vector: bytes, group: Sequence[bytes], kind: str = MEAN) -> float:
    """Returns IDD of an embedding against those of its domain."""
    if not group:
        return 1.0
    rows = directions([*group, vector])
    apart = 1.0 - rows[:-1] @ rows[-1]
    return float(apart.mean() if kind == MEAN else apart.min())


def _domain(rule: Quality, item: Item) -> int:
    return int(item.note.scores[len(rule.scores)])


def _present(rule: Quality, new: Item, held: Sequence[Item]) -> NDArray[np.float64]:
    """Returns the held items' scores as they count now, ``(held, scores)``."""
    used = len(rule.scores)
    values = np.array([item.note.scores[:used] for item in held]).reshape(len(held), used)
    if rule.aging == DECAY:
        ages = np.array([new.order - item.order for item in held])
        values = values * 0.5 ** (ages / rule.half_life)[:, None]
    if rule.aging == RESCORED and IDD in rule.scores and held:
        values[:, rule.scores.index(IDD)] = _rescored(rule, held)
    return values


def _rescored(rule: Quality, held: Sequence[Item]) -> NDArray[np.float64]:
    """Returns the IDD of every held item against the others of its domain."""
    rows = directions([item.note.vector for item in held])
    domains = np.array([_domain(rule, item) for item in held])
    peers = domains[:, None] == domains[None]
    np.fill_diagonal(peers, val=False)
    apart = 1.0 - rows @ rows.T
    if rule.idd == NEAREST:
        return np.where(peers, apart, 1.0).min(axis=1)
    sizes = peers.sum(axis=1)
    sums = np.where(peers, apart, 0.0).sum(axis=1)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), 1.0)


def _check_choices(rule: Quality) -> None:
    choices = {
        "eoe": (PUBLISHED, STANDARDISED),
        "idd": (MEAN, NEAREST),
        "rule": (ALL_THREE, WEIGHTED, BALANCED),
        "aging": (NONE, DECAY, RESCORED),
        "vectors": (STORED, AGAIN),
        "text": (Text.DIALOGUE.value, Text.QUESTION.value),
    }
    for name, allowed in choices.items():
        if getattr(rule, name) not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {getattr(rule, name)!r}")
    unknown = [name for name in rule.scores if name not in SCORES]
    if unknown:
        raise ValueError(f"scores must be among {SCORES}, got {unknown[0]!r}")
    if rule.embedding != "backbone":
        raise ValueError(
            f"embedding must be backbone, got {rule.embedding!r}; "
            "embeddings of another model are not built here"
        )
