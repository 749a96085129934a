"""Wording: whether explanations of generated styles name the right side of the right axis.

The generator's axes have names of their own; which word of the explanations' list is read as being
about which axis is decided here, to judge explanations and never to make them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simulations.results.device_means import Floats, Indices, bootstrap_interval
from simulations.studies.graded_styles import AXES, levels_of

MORE: Mapping[str, str] = {
    **dict.fromkeys(("lengthy", "circumstantial", "adding"), "informativeness"),
    **dict.fromkeys(("elaborate", "wordy", "detailed", "informative"), "informativeness"),
    **dict.fromkeys(("learned", "long-worded", "technical", "scholarly"), "expertise"),
    **dict.fromkeys(("emphatic", "pausing", "segmented", "naming"), "tone"),
    **dict.fromkeys(("friendly", "polite", "cheerful", "enthusiastic", "affectionate"), "tone"),
}
"""Words that say that there is much of an axis."""
LESS: Mapping[str, str] = {
    **dict.fromkeys(("terse", "bare", "unadorned"), "informativeness"),
    **dict.fromkeys(("concise", "laconic", "sketchy", "uninformative"), "informativeness"),
    **dict.fromkeys(("simple", "short-worded", "elementary", "colloquial"), "expertise"),
    **dict.fromkeys(("flat", "unbroken", "single-sentenced", "nameless"), "tone"),
    **dict.fromkeys(("unfriendly", "rude", "gloomy", "bored", "distant"), "tone"),
}
"""Words that say that there is little of it."""
_UPPER = 2


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
    if not known:
        return {"mean": None, "ci95": [None, None]}
    right = np.array(known)

    def statistic(index: Indices) -> Floats:
        return right[index].mean(axis=1)

    mean = float(right.mean())
    interval = bootstrap_interval(statistic, len(right), seed=0)
    return {"mean": mean if math.isfinite(mean) else None, "ci95": interval}
