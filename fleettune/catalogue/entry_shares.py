"""Mixture: which share of a user's exchanges reads as each entry of a catalogue.

A user is seldom in one style alone. The mean of mixed exchanges lies between entries, where a
third one may be nearest; single exchanges do not. Each is taken to be one entry's, scattered
around it as the server saw the entry's own answers scatter, and the shares of the entries are those
that make the exchanges likeliest: maximum likelihood of a mixture with known components, by
expectation and maximisation (Dempster, Laird and Rubin 1977).
"""

from __future__ import annotations

import numpy as np

from fleettune.catalogue.decomposition import Floats

ITERATIONS = 100


def entry_shares(points: Floats, places: Floats, spread: float) -> Floats:
    """Returns the share of every entry in a user's exchanges, ``(entries,)``; they sum to 1.

    Args:
        points: Where single exchanges stand, ``(exchanges, n)``.
        places: Where entries stand, ``(entries, n)``.
        spread: Variance of an exchange about its entry along every coordinate.

    Raises:
        ValueError: If there is no exchange or no entry, or the variance is not positive.
    """
    if not len(points) or not len(places):
        raise ValueError(f"shares need exchanges and entries, got {len(points)} and {len(places)}")
    if not spread > 0:
        raise ValueError(f"start.spread must be > 0, got {spread}")
    squares = np.square(points[:, None] - places[None]).sum(axis=2) / spread
    # likelihoods up to a factor per exchange, which no share depends on
    likely = np.exp((squares.min(axis=1, keepdims=True) - squares) / 2)
    shares = np.full(len(places), 1 / len(places))
    for _ in range(ITERATIONS):
        joint = likely * shares
        shares = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares
