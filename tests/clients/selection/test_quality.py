"""Quality selection: scores and replacements by hand, and the freezing buffer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.selection.buffer import Arrival, Item, Note, pack_vector
from clients.selection.lexicon import Lexicon
from clients.selection.quality import (
    QualityReplace,
    dissimilarity,
    dominant,
    evenness,
    score_arrival,
    specificity,
)
from fleettune.data.exchanges import Exchange
from fleettune.seeds import Purpose, stream

LEXICON = (
    Lexicon(domain="food", words="soup bread tea"),
    Lexicon(domain="travel", words="train ticket tea"),
)
RULE = QualityReplace(lexicon=LEXICON)
HUGE = 10**9


def vector(*numbers: float) -> bytes:
    return pack_vector(np.array(numbers, np.float32))


def reading(
    order: int, text: str = "soup", direction: bytes = vector(1, 0), evenness: float = 0.5
) -> Arrival:
    """An arrival whose published EOE is `evenness`: four tokens, so log n is log 4."""
    exchange = Exchange(question=text, response="ok", day=0, order=order)
    entropy = evenness * math.log(4)
    return Arrival(exchange=exchange, vector=direction, entropy=entropy, tokens=4)


def held(order: int, *scores: float, domain: int = 0, size: int = 10) -> Item:
    exchange = Exchange(question="x" * size, response="", day=0, order=order)
    return Item(exchange=exchange, note=Note(vector=vector(1, 0), scores=(*scores, domain)))


def first(exchange: Exchange) -> float:
    return 0.0


def last(exchange: Exchange) -> float:
    return 0.999


def drawn(exchange: Exchange) -> float:
    return float(stream(0, Purpose.SELECTION, exchange.order).random())


def orders(items: Sequence[Item]) -> list[int]:
    return [item.order for item in items]


def test_eoe_by_hand() -> None:
    # norms 1, 1, 2: p = 1/4, 1/4, 1/2, so H = 1.5 log 2 and n = 3
    entropy = 1.5 * math.log(2)
    assert evenness(entropy, 3, "published") == pytest.approx(1.5 * math.log(2) / math.log(3))
    theil = math.log(3) - entropy
    assert evenness(entropy, 3, "standardised") == pytest.approx(math.exp(-1.5 * theil))
    # one token says nothing of evenness: the worst value
    assert evenness(0.0, 1, "published") == evenness(0.0, 0, "published") == 0
    assert evenness(0.0, 1, "standardised") == pytest.approx(1 / 4)


def test_only_the_standardised_eoe_is_free_of_length() -> None:
    rng = np.random.default_rng(0)
    means: dict[str, list[float]] = {"published": [], "standardised": []}
    for tokens in (8, 32, 128):
        norms = rng.lognormal(sigma=0.5, size=(4000, tokens))
        share = norms / norms.sum(axis=1, keepdims=True)
        entropies = -(share * np.log(share)).sum(axis=1)
        for kind, found in means.items():
            found.append(float(np.mean([evenness(float(e), tokens, kind) for e in entropies])))
    assert means["published"][-1] - means["published"][0] > 0.02
    assert max(means["standardised"]) - min(means["standardised"]) < 0.01


def test_dss_and_the_dominant_domain_by_hand() -> None:
    # soup, tea, train, please, ok: food has soup and tea, travel tea and train
    item = score_arrival(RULE, reading(0, "Soup, tea & train please"), ())
    eoe, dss, idd, domain = item.note.scores
    assert eoe == pytest.approx(0.5)
    assert dss == pytest.approx((2 / 5 + 2 / 5) / 2)
    assert (idd, domain) == (1.0, 0)
    assert specificity([0, 0], 0) == 0
    assert (dominant([1, 2]), dominant([2, 2]), dominant([0, 0])) == (1, 0, -1)


def test_idd_by_hand() -> None:
    # to (1,0): 1 - cos 45 degrees; to (0,1): the same; the third is of another domain
    group = [held(0, 0, 0, 0), held(1, 0, 0, 0), held(2, 0, 0, 0, domain=1)]
    group[1] = replace(group[1], note=replace(group[1].note, vector=vector(0, 3)))
    new = score_arrival(RULE, reading(3, "soup", vector(2, 2)), group)
    assert new.note.scores[2] == pytest.approx(1 - math.sqrt(0.5), abs=1e-3)
    assert dissimilarity(vector(1, 0), []) == 1
    assert dissimilarity(vector(1, 0), [vector(-1, 0)]) == pytest.approx(2)


def test_one_that_is_beaten_on_all_three_is_replaced_at_random() -> None:
    # the arrival scores EOE .5, DSS (1/2)/2 = .25, IDD 1 (no other text without a domain word)
    new = reading(9, "soup", vector(0, 1))
    bins = [
        held(0, 0.4, 0.2, 0.9, domain=1),
        held(1, 0.4, 0.3, 0.9, domain=1),  # better DSS
        held(2, 0.5, 0.2, 0.9, domain=1),  # equal EOE is not beaten
        held(3, 0.1, 0.1, 0.1, domain=1),
    ]
    quota = sum(item.size_bytes for item in bins)
    assert orders(RULE.keep(bins, [new], quota, first)) == [1, 2, 3, 9]
    assert orders(RULE.keep(bins, [new], quota, last)) == [0, 1, 2, 9]
    # where nobody is beaten on all three the arrival is dropped
    assert orders(RULE.keep(bins[1:3], [new], 2 * bins[0].size_bytes, first)) == [1, 2]


def test_a_larger_arrival_needs_as_many_beaten_ones_as_it_takes_bytes() -> None:
    new = reading(9, "soup " * 4, vector(0, 1), evenness=1.0)
    bins = [held(0, 0.1, 0.1, 0.1, domain=1), held(1, 0.1, 0.1, 0.1, domain=1)]
    quota = sum(item.size_bytes for item in bins)
    assert bins[0].size_bytes < score_arrival(RULE, new, bins).size_bytes <= quota
    assert orders(RULE.keep(bins, [new], quota, first)) == [9]
    bins[1] = held(1, 2.0, 0.1, 0.1, domain=1)
    assert orders(RULE.keep(bins, [new], quota, first)) == [0, 1]


def test_weights_decide_within_the_fullest_domain_by_hand() -> None:
    # in standard deviations of the three compared: EOE .2 .8 .5, DSS .5 .1 .25, IDD all 1
    bins = [held(0, 0.2, 0.5, 1.0), held(1, 0.8, 0.1, 1.0)]
    new, quota = reading(9, "soup", vector(0, 1)), 2 * bins[0].size_bytes
    even = QualityReplace(lexicon=LEXICON, rule="balanced")
    # equal weights: EOE z (-1.22, 1.22, 0), DSS z (1.31, -1.11, -.20): the arrival's -.20 is
    # below both
    assert orders(even.keep(bins, [new], quota, first)) == [0, 1]
    eoe = replace(even, weights=(10.0, 1.0, 1.0))
    assert orders(eoe.keep(bins, [new], quota, first)) == [1, 9]
    dss = replace(even, weights=(1.0, 10.0, 1.0))
    assert orders(dss.keep(bins, [new], quota, first)) == [0, 9]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [(("eoe",), [1, 9]), (("dss",), [0, 9]), (("eoe", "dss"), [0, 1]), (("idd",), [0, 1])],
)
def test_scores_that_are_left_out_do_not_count(
    scores: tuple[str, ...], expected: list[int]
) -> None:
    values = [{"eoe": 0.2, "dss": 0.5, "idd": 1.0}, {"eoe": 0.8, "dss": 0.1, "idd": 1.0}]
    bins = [
        replace(
            held(place, 0),
            note=Note(
                vector=vector(1, 0) if "idd" in scores else b"",
                scores=(*(own[name] for name in scores), *([1.0] if "idd" in scores else [])),
            ),
        )
        for place, own in enumerate(values)
    ]
    rule = QualityReplace(lexicon=LEXICON, scores=scores)
    quota = sum(item.size_bytes for item in bins)
    assert orders(rule.keep(bins, [reading(9)], quota, first)) == expected
    assert rule.embeddings == ("nothing" if scores == ("dss",) else "stored")


def random_stream(count: int, seed: int) -> list[Arrival]:
    """Arrivals whose three scores are independent of each other."""
    rng = np.random.default_rng(seed)
    words = ["soup", "bread", "go", "the"]
    return [
        reading(
            order,
            " ".join(rng.choice(words, size=12)),
            vector(*rng.normal(size=4)),
            evenness=float(rng.random()),
        )
        for order in range(count)
    ]


def test_the_published_buffer_freezes() -> None:
    # acceptance by windows of the stream falls (docs/methods.md#quality-selection-published: 39 %
    # to 1.4 % at 128 bins)
    items, shares = (), []
    arrivals, quota = random_stream(1600, seed=1), 32 * 120
    for start, end in ((0, 100), (100, 400), (400, 1600)):
        accepted = 0
        for place in range(start, end):
            items = RULE.keep(items, arrivals[place : place + 1], quota, drawn)
            accepted += items[-1].order == place
        shares.append(accepted / (end - start))
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < shares[0] / 4


def test_the_published_buffer_hardly_takes_in_a_topic_that_is_new() -> None:
    # a user asks 60 times about food, then 40 times about travel; ten exchanges are held
    rng = np.random.default_rng(3)
    items: tuple[Item, ...] = ()
    for order in range(100):
        axis, text = ((1, 0, 0, 0), "soup") if order < 60 else ((0, 1, 0, 0), "train")
        direction = vector(*(np.array(axis) + 0.4 * rng.normal(size=4)))
        new = reading(order, f"{text} please now", direction, float(rng.uniform(0.4, 0.6)))
        items = RULE.keep(items, [new], 10 * 43, drawn)
    assert sum(item.order >= 60 for item in items) <= 0.1 * len(items)


def test_the_nearest_of_its_domain_is_what_a_copy_is_near_to() -> None:
    group = [vector(0, 1), vector(-1, 0), vector(1, 0.01)]
    assert dissimilarity(vector(1, 0), group) == pytest.approx((1 + 2 + 0) / 3, abs=1e-3)
    assert dissimilarity(vector(1, 0), group, "nearest") == pytest.approx(0, abs=1e-3)
    assert dissimilarity(vector(1, 0), [], "nearest") == 1


def test_the_balanced_rule_by_hand() -> None:
    rule = QualityReplace(lexicon=LEXICON, rule="balanced", scores=("dss", "idd"))
    two = [held(0, 0.9, 0.9, domain=1), held(1, 0.8, 0.8, domain=1)]
    quota = 2 * two[0].size_bytes
    # the arrival is of domain 0 and scores DSS .25, IDD 1: the fuller domain gives its lowest
    assert orders(rule.keep(two, [reading(9)], quota, first)) == [0, 9]
    # within its own domain, the fullest with it, the arrival must be better than one: DSS 0.25
    # against 0.9 and 0.2, IDD 0 (both held have its direction) against 0.9 and -0.1
    same = [held(0, 0.9, 0.9), held(1, 0.2, -0.1)]
    assert orders(rule.keep(same, [reading(9, direction=vector(1, 0))], quota, first)) == [0, 9]
    better = [held(0, 0.9, 0.9), held(1, 0.8, 0.8)]
    assert orders(rule.keep(better, [reading(9, direction=vector(1, 0))], quota, first)) == [0, 1]


@settings(derandomize=True, deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), bins=st.integers(2, 8))
def test_a_balanced_buffer_holds_domains_alike(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    rule = QualityReplace(lexicon=LEXICON, rule="balanced", vectors="again")
    items: tuple[Item, ...] = ()
    for order in range(6 * bins):
        # a long burst of food, then travel
        text = "soup" if order < 4 * bins else "ride"
        words = "soup" if text == "soup" else "train"
        arrival = replace(reading(order, f"{words:5}", vector(*rng.normal(size=3))), lent=True)
        items = rule.keep(items, [arrival], bins * 23, drawn)
    food = sum("soup" in item.exchange.question for item in items)
    assert abs(2 * food - len(items)) <= 1


def test_an_embedding_that_is_lent_takes_no_bytes() -> None:
    stored, lent = (
        score_arrival(RULE, replace(reading(0), lent=one), []).note for one in (False, True)
    )
    assert stored.size_bytes - lent.size_bytes == len(vector(1, 0))
    assert lent.without_lent() == replace(lent, vector=b"", lent=False)
    assert stored.without_lent() is stored


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    entropy=st.floats(0, 1),
    tokens=st.integers(0, 500),
    kind=st.sampled_from(["published", "standardised"]),
)
def test_eoe_stays_from_0_to_1(entropy: float, tokens: int, kind: str) -> None:
    found = evenness(entropy * math.log(max(1, tokens)), tokens, kind)
    assert 0 <= found <= 1 + 1e-12


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("eoe", "raw", "eoe must be one of"),
        ("rule", "weighted", "rule must be one of"),
        ("idd", "median", "idd must be one of"),
        ("vectors", "none", "vectors must be one of"),
        ("scores", (), "scores must name one to three"),
        ("scores", ("eoe", "eoe"), "scores must name one to three"),
        ("scores", ("rouge",), "scores must be among"),
        ("weights", (1.0,), "one per score"),
        ("weights", (1.0, 0.0, 1.0), "finite and > 0"),
        ("lexicon", (), "at least one domain"),
    ],
)
def test_options_out_of_range_are_refused(field: str, value: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(RULE, **{field: value})
