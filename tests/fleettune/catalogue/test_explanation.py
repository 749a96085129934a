"""Explanations: distances by hand, words on the right side."""

from __future__ import annotations

import numpy as np
import pytest

from fleettune.catalogue.explanation import Cosine, Published, Relative, explained, in_words

ENTRIES = np.array([[4.0, 0.0], [-4.0, 0.0], [0.0, 2.0], [0.0, -2.0]])


def test_the_published_distance_is_l1() -> None:
    assert Published().to(np.array([1.0, 1.0]), ENTRIES).tolist() == [4, 6, 2, 4]


def test_half_an_entry_is_at_no_relative_distance_from_it() -> None:
    half = ENTRIES[0] / 2
    assert Relative().to(half, ENTRIES).tolist() == [0, 2, 2, 2]
    # the published distance to it is 2, as far as from anything half as strong
    assert Published().to(half, ENTRIES).tolist() == [2, 6, 4, 4]


def test_the_middle_of_a_catalogue_is_near_nothing() -> None:
    assert Relative().to(np.zeros(2), ENTRIES).tolist() == [2, 2, 2, 2]
    assert Relative().to(np.ones(2), np.zeros((1, 2))).tolist() == [2]


def test_an_explanation_names_the_strongest_word_first_and_the_opposite_for_less() -> None:
    terms = explained(("long", "warm"), ("terse", "cool"), np.array([-3.0, 1.5]), np.zeros(2))
    assert [(term.word, term.amount) for term in terms] == [("terse", 3.0), ("warm", 1.5)]
    assert in_words(terms) == "terse 3, warm 1.5"
    away = explained(
        ("long", "warm"), ("terse", "cool"), np.array([2.0, 1.0]), np.array([2.0, 0.0])
    )
    assert in_words(away) == "warm 1"


@pytest.mark.parametrize("distance", [Published(), Relative(), Cosine()])
def test_an_entry_is_nearest_to_itself(distance: Published | Relative | Cosine) -> None:
    for place, entry in enumerate(ENTRIES):
        assert int(np.argmin(distance.to(entry, ENTRIES))) == place
