"""Explanations judged: do coordinates grow with the level of a style, and is its word right?

XPerT reports distances between coefficients of levels 1 to 4 and expects d(1,2) < d(1,3) < d(1,4)
(docs/methods.md#levels-of-a-graded-style).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simulations.results.device_means import Floats, Indices, estimate_mean
from simulations.studies.claim_measures import add_interval

AXES = ("expertise", "informativeness", "tone")
_NAME = re.compile(r"e(\d)i(\d)t(\d)")
MORE: Mapping[str, str] = {
    **dict.fromkeys(("lengthy", "circumstantial", "adding"), "informativeness"),
    **dict.fromkeys(("learned", "long-worded"), "expertise"),
    **dict.fromkeys(("emphatic", "pausing", "segmented", "naming"), "tone"),
}
"""Words that say that there is much of an axis.

The generator's axes have names of their own; which word is read as being about which axis is
decided here, to judge explanations and never to make them.
"""
LESS: Mapping[str, str] = {
    **dict.fromkeys(("terse", "bare", "unadorned"), "informativeness"),
    **dict.fromkeys(("simple", "short-worded"), "expertise"),
    **dict.fromkeys(("flat", "unbroken", "single-sentenced", "nameless"), "tone"),
}
"""Words that say that there is little of it."""
_UPPER = 2


def levels_of(name: str) -> tuple[int, ...] | None:
    """Returns the levels of a generated style on `AXES`; None of another entry's name."""
    found = _NAME.fullmatch(name)
    return tuple(map(int, found.groups())) if found else None


def distances(entries: Sequence[Mapping[str, Any]], axis: str) -> Floats:
    """Returns L1 distances from an axis' lowest level to those above, ``(rests, levels - 1)``.

    Args:
        entries: Rows of ``server_catalogue.json``; those of its first release are used.
        axis: expertise, informativeness or tone; the other two make a rest.

    Raises:
        ValueError: If the axis is unknown.
    """
    if axis not in AXES:
        raise ValueError(f"a claim about levels needs a column of {AXES}, got {axis!r}")
    which = AXES.index(axis)
    by_rest: dict[tuple[int, ...], dict[int, Floats]] = {}
    for entry in entries:
        levels = levels_of(entry["entry"])
        if levels and entry["release"] == entries[0]["release"]:
            rest = levels[:which] + levels[which + 1 :]
            by_rest.setdefault(rest, {})[levels[which]] = np.array(entry["coordinates"])
    counts = {len(own) for own in by_rest.values()}
    if len(counts) != 1 or counts == {1}:
        return np.zeros((0, 0))
    return np.array(
        [
            [np.abs(own[n] - own[min(own)]).sum() for n in sorted(own)[1:]]
            for own in by_rest.values()
        ]
    )


def level_growth(entries: Sequence[Mapping[str, Any]], axis: str) -> dict[str, Any]:
    """Returns the smallest mean growth from one level's distance to the next, with its interval.

    In the coordinates' unit; resampled over what the other two axes are. Unknown where not all
    levels of the axis have entries.
    """
    apart = distances(entries, axis)
    growth = np.diff(apart, axis=1) if apart.shape[1] > 1 else np.zeros((0, 1))

    def statistic(index: Indices) -> Floats:
        return np.array([growth[drawn].mean(axis=0).min() for drawn in index])

    mean = float(statistic(np.arange(len(growth))[None])[0]) if len(growth) else math.nan
    return add_interval(mean, statistic, np.arange(len(growth)))


def is_right(entry: Mapping[str, Any]) -> bool:
    """Returns whether an entry's strongest word is about an axis and on the entry's side of it."""
    word, levels = entry["strongest"], levels_of(entry["entry"])
    axis = MORE.get(word) or LESS.get(word)
    if axis is None or levels is None:
        return False
    return (levels[AXES.index(axis)] >= _UPPER) == (word in MORE)


def strongest_right(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the share of a first catalogue's entries whose strongest word is right.

    With an interval over entries; unknown where no entry is of a generated style.
    """
    known = [
        float(is_right(entry))
        for entry in entries
        if entry["release"] == entries[0]["release"] and levels_of(entry["entry"])
    ]
    return estimate_mean(np.array(known), np.arange(len(known)), seed=0)
