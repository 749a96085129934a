"""Decomposition: orthogonal words and a falling residual, by hand and by property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fleettune.catalogue.decomposition import (
    Basis,
    Candidate,
    decompose,
    describe,
    format_terms,
    sort_by_strength,
)

Floats = NDArray[np.float64]


def word(name: str, *entries: float) -> Candidate:
    return Candidate(word=name, opposite=f"not {name}", vector=np.array(entries, dtype=float))


def drawn(seed: int, words: int, targets: int, size: int) -> tuple[list[Candidate], Floats]:
    rng = np.random.default_rng(seed)
    candidates = [
        Candidate(word=f"w{n}", opposite=f"o{n}", vector=rng.normal(size=size))
        for n in range(words)
    ]
    return candidates, rng.normal(size=(targets, size))


def residuals(basis: Basis, vector: Floats) -> Floats:
    """The norm that is left of a vector before any word and after each of them."""
    left = [vector]
    for direction in basis.vectors:
        left.append(left[-1] - (left[-1] @ direction) * direction)
    return np.array([float(np.linalg.norm(rest)) for rest in left])


SIZES = st.tuples(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 5), st.integers(2, 9))


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_directions_are_orthonormal(sizes: tuple[int, int, int, int]) -> None:
    candidates, targets = drawn(*sizes)
    basis = decompose(candidates, targets, gate=0.999, residual=0.0)
    products = basis.vectors @ basis.vectors.T
    # rounding of double precision, twice orthogonalised
    assert np.allclose(products, np.eye(len(products)), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_the_residual_falls_with_every_word(sizes: tuple[int, int, int, int]) -> None:
    candidates, targets = drawn(*sizes)
    basis = decompose(candidates, targets, gate=1.0, residual=0.0)
    for target in targets:
        falling = residuals(basis, target)
        # differences of norms round at about 1e-16 of the norm
        assert np.all(np.diff(falling) <= 1e-12)
        explained = float(np.square(basis.coordinates(target)).sum())
        assert falling[-1] ** 2 + explained == pytest.approx(float(target @ target))


def test_two_words_by_hand() -> None:
    basis = decompose(
        [word("long", 2, 0, 0), word("warm", 3, 4, 0)],
        np.array([[5.0, 7.0, 1.0]]),
        gate=0.9,
        residual=0.0,
    )
    assert basis.words == ("long", "warm")
    assert np.allclose(basis.vectors, [[1, 0, 0], [0, 1, 0]])
    assert np.allclose(basis.coordinates(np.array([5.0, 7.0, 1.0])), [5, 7])
    assert np.allclose(residuals(basis, np.array([5.0, 7.0, 1.0])), [75**0.5, 50**0.5, 1])


def test_the_gate_refuses_the_same_word_and_its_opposite() -> None:
    candidates = [word("long", 1, 0), word("lengthy", 1, 0.01), word("short", -1, 0.01)]
    basis = decompose([*candidates, word("warm", 0, 1)], np.ones((1, 2)), gate=0.95, residual=0.0)
    assert basis.words == ("long", "warm")


def test_a_word_within_the_span_of_others_is_refused() -> None:
    candidates = [word("one", 1, 0, 0), word("two", 0, 1, 0), word("both", 1, 1, 0)]
    assert decompose(candidates, np.ones((1, 3)), gate=0.99, residual=0.0).words == ("one", "two")


def test_it_stops_when_every_target_is_explained() -> None:
    candidates = [word("one", 1, 0), word("two", 0, 1)]
    one = np.array([[4.0, 0.1]])
    assert decompose(candidates, one, gate=1.0, residual=0.1).words == ("one",)
    both = np.array([[4.0, 0.1], [0.1, 4.0]])
    assert decompose(candidates, both, gate=1.0, residual=0.1).words == ("one", "two")


def test_the_strongest_word_is_the_one_along_which_targets_differ() -> None:
    targets = np.array([[10.0, 1.0], [10.0, -1.0]])
    ordered = sort_by_strength([word("common", 1, 0), word("telling", 0, 1)], targets)
    assert [candidate.word for candidate in ordered] == ["telling", "common"]


@pytest.mark.parametrize(
    ("given_gate", "given_residual", "told"),
    [(0.0, 0.1, "gate"), (1.5, 0.1, "gate"), (0.9, 1.0, "residual"), (0.9, -0.1, "residual")],
)
def test_a_threshold_that_is_no_share_is_refused(
    given_gate: float, given_residual: float, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        decompose([word("a", 1)], np.ones((1, 1)), gate=given_gate, residual=given_residual)


def test_candidates_and_targets_must_have_one_size() -> None:
    with pytest.raises(ValueError, match="'a' does not"):
        decompose([word("a", 1, 2)], np.ones((1, 3)), gate=1.0, residual=0.0)
    with pytest.raises(ValueError, match="candidate with a direction"):
        decompose([word("a", 0, 0)], np.ones((1, 2)), gate=1.0, residual=0.0)
    with pytest.raises(ValueError, match="a word, an opposite and a vector"):
        Basis(words=("a",), opposites=(), vectors=np.ones((1, 2)))


def test_an_explanation_names_the_strongest_word_first_and_the_opposite_for_less() -> None:
    terms = describe(("long", "warm"), ("terse", "cool"), np.array([-3.0, 1.5]), np.zeros(2))
    assert [(term.word, term.amount) for term in terms] == [("terse", 3.0), ("warm", 1.5)]
    assert format_terms(terms) == "terse 3, warm 1.5"
    away = describe(("long", "warm"), ("terse", "cool"), np.array([2.0, 1.0]), np.array([2.0, 0.0]))
    assert format_terms(away) == "warm 1"
