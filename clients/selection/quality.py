"""Quality selection: keep what is rich, on topic and new.

Source: Qin et al., DAC 2024; docs/methods.md#quality-selection-published.

Three scores per exchange, higher is better. For tokens with hidden norms a_i and p_i = a_i / sum a:

    EOE = -sum p_i log p_i / log n           evenness of the tokens' embeddings
    DSS = mean over lexicons of the share of the text's words that lie in it
    IDD = mean of 1 - cos to those held of the same dominant domain

The paper gives no p for a vector, so p follows the norms. The first token and others with outlying
norms are left out (`fleettune.cohort.score`), as one attention sink would decide the score.
Embeddings come from the middle layer, at half the joules of the paper's last one, and stay as they
were when the exchange arrived. Where nothing is defined: EOE of one token is 0, and 1/4 where it is
standardised; DSS of no word is 0; a text without a word of any lexicon has a domain of its own;
IDD without another exchange of the domain is 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.selection.buffer import (
    Arrival,
    Item,
    Note,
    round_score,
    sort_by_time,
    total_bytes,
    unit_rows,
)
from clients.selection.lexicon import Lexicon, count_hits, words_of
from clients.selection.rules import (
    Embeddings,
    Priority,
    check_vectors,
    free_bytes,
    shrink,
    shuffle,
)

EOE, DSS, IDD = "eoe", "dss", "idd"
SCORES = (EOE, DSS, IDD)
PUBLISHED, STANDARDISED = "published", "standardised"
ALL_THREE, BALANCED = "all_three", "balanced"
MEAN, NEAREST = "mean", "nearest"
NO_DOMAIN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReplace:
    """Keeps exchanges that beat held ones on their scores.

    In a dialogue that is scored, the preferred answer stands for the one that was shown, whether
    or not the user is asked later.

    Attributes:
        lexicon: Words by domain, for DSS and the dominant domain.
        scores: Which of ``eoe``, ``dss``, ``idd`` are used; all three as published.
        eoe: ``published``, or ``standardised``: exp(-(log n - H) n / (n - 1)), whose mean does not
            depend on the number of tokens n where norms spread alike.
        idd: ``mean`` dissimilarity to those of the domain as published, or that to the ``nearest``,
            which a group of many does not hide a copy in.
        rule: ``all_three`` as published: an arrival replaces one held exchange that it beats on
            every score used, a random one among several. ``balanced``: it replaces the one of the
            lowest weighted sum of scores in standard deviations, if its own is higher, within one
            domain: the one that holds most exchanges, the arrival counted. Where that is not the
            arrival's own, the lowest of it goes in any case.
        weights: One weight per score used, for ``balanced``; empty for equal ones.
        vectors: ``stored`` beside the exchanges as published, for IDD; or made ``again`` whenever
            others arrive, with no byte of the quota spent on them.

    Raises:
        ValueError: If a value breaks its rule.
    """

    lexicon: tuple[Lexicon, ...]
    scores: tuple[str, ...] = SCORES
    eoe: str = PUBLISHED
    idd: str = MEAN
    rule: str = ALL_THREE
    weights: tuple[float, ...] = ()
    vectors: str = Embeddings.STORED

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

    @property
    def embeddings(self) -> str:
        """What becomes of embeddings; nothing is embedded where lexicons alone decide."""
        if IDD in self.scores:
            return self.vectors
        return Embeddings.STORED if EOE in self.scores else Embeddings.NOTHING

    def keep(
        self, held: Sequence[Item], arrived: Sequence[Arrival], quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        """Returns what is held after every arrival was compared, one by one."""
        kept = shrink(held, quota_bytes, priority)
        for arrival in sorted(arrived, key=lambda arrival: arrival.order):
            kept = self._offer(kept, arrival, quota_bytes, priority)
        return sort_by_time(kept)

    def _offer(
        self, held: tuple[Item, ...], arrival: Arrival, quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        new = score_arrival(self, arrival, held)
        lacking = total_bytes(held) + new.size_bytes - quota_bytes
        if lacking <= 0:
            return (*held, new)
        find = _find_beaten if self.rule == ALL_THREE else _find_crowding
        left = free_bytes(held, find(self, new, held, priority(arrival.exchange)), lacking)
        if total_bytes(left) + new.size_bytes > quota_bytes:
            return held
        return sort_by_time((*left, new))


def score_arrival(rule: QualityReplace, arrival: Arrival, held: Sequence[Item]) -> Item:
    """Returns an arrival with its scores against those held, and its domain if the rule needs it.

    The domain stands behind the scores, as a number.
    """
    words = words_of(arrival.exchange.question) + words_of(arrival.exchange.response)
    counts = count_hits(words, rule.lexicon)
    domain = dominant(counts)
    values: list[float] = []
    for name in rule.scores:
        if name == EOE:
            values.append(evenness(arrival.entropy, arrival.tokens, rule.eoe))
        elif name == DSS:
            values.append(specificity(counts, len(words)))
        else:
            group = [item.note.vector for item in held if _domain(rule, item) == domain]
            values.append(dissimilarity(arrival.vector, group, rule.idd))
    uses_idd = IDD in rule.scores
    note = Note(
        vector=arrival.vector if uses_idd else b"",
        lent=uses_idd and arrival.lent,
        scores=(
            *map(round_score, values),
            *([float(domain)] if uses_idd or rule.rule == BALANCED else []),
        ),
    )
    return Item(exchange=arrival.exchange, note=note)


def _find_beaten(
    rule: QualityReplace, new: Item, held: Sequence[Item], number: float
) -> list[Item]:
    """Returns the held items that an arrival beats on every score, in an order drawn by a number.

    Args:
        rule: The rule.
        new: The arrival with its scores.
        held: What is held.
        number: Random number from 0 to 1.
    """
    own, others = _values(rule, [new]), _values(rule, held)
    worse = np.flatnonzero((own > others).all(axis=1)).tolist()
    return [held[place] for place in shuffle(worse, number)]


def _find_crowding(
    rule: QualityReplace, new: Item, held: Sequence[Item], number: float
) -> list[Item]:
    """Returns the held items of the fullest domain that may go for an arrival, the lowest first.

    Arguments are those of `_find_beaten`; the number decides among equal sums.
    """
    every = [*held, new]
    domains = [_domain(rule, item) for item in every]
    counts = Counter(domains)
    most = max(counts.values())
    own = counts[domains[-1]] == most
    largest = domains[-1] if own else min(d for d, count in counts.items() if count == most)
    places = [place for place, domain in enumerate(domains) if domain == largest]
    values = _values(rule, [every[place] for place in places])
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    weights = np.array(rule.weights or (1.0,) * len(rule.scores))
    sums = dict(zip(places, values @ weights, strict=True))
    order = shuffle([place for place in places if place < len(held)], number)
    lowest = sorted(order, key=lambda place: float(sums[place]))
    return [every[p] for p in lowest if not own or sums[p] < sums[len(held)]]


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
    rows = unit_rows([*group, vector])
    apart = 1.0 - rows[:-1] @ rows[-1]
    return float(apart.mean() if kind == MEAN else apart.min())


def _domain(rule: QualityReplace, item: Item) -> int:
    return int(item.note.scores[len(rule.scores)])


def _values(rule: QualityReplace, items: Sequence[Item]) -> NDArray[np.float64]:
    """Returns the scores of items, ``(items, scores)``."""
    used = len(rule.scores)
    return np.array([item.note.scores[:used] for item in items]).reshape(len(items), used)


def _check_choices(rule: QualityReplace) -> None:
    choices = {
        "eoe": (PUBLISHED, STANDARDISED),
        "idd": (MEAN, NEAREST),
        "rule": (ALL_THREE, BALANCED),
    }
    for name, allowed in choices.items():
        if getattr(rule, name) not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {getattr(rule, name)!r}")
    check_vectors(rule.vectors)
    unknown = [name for name in rule.scores if name not in SCORES]
    if unknown:
        raise ValueError(f"scores must be among {SCORES}, got {unknown[0]!r}")
