"""Keyed random streams: every stream is named by what it is for.

Adding a device or changing the order of work therefore changes nobody else's numbers.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a random stream is for; the numbers are part of every result and never reused."""

    PERSONA = 1
    STREAM = 2
    OUTSIDE = 3
    HARDWARE = 4
    SELECTION = 5
    TUNING = 6
    SAMPLING = 7
    RELEASE = 8
    POCKET = 9
    DRIFT = 10
    ADAPTER = 11
    AVAILABILITY = 13
    COEFFICIENTS = 14
    SYNTHESIS = 15
    PROBE = 17
    PLACEMENT = 18
    HOLDOUT = 26
    CANARY = 31
    EXPLORATION = 32
    RANDOM_RETUNE = 33
    SKETCH = 34
    SHARED_A = 35
    ROLLOUT = 36
    STYLE = 44
    CATALOGUE = 45
    MODEL_CHECK = 46
    RELEASE_FAMILY = 47


def stream(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
    """Returns the generator of one purpose, for example one device in one round.

    Args:
        seed: The experiment's seed, 0 or more.
        purpose: What the numbers are for.
        keys: Whatever tells this stream from its siblings (user, round, ...), 0 or more each.

    Raises:
        ValueError: If the seed is below 0.
    """
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    sequence = np.random.SeedSequence(seed, spawn_key=(int(purpose), *keys))
    return np.random.Generator(np.random.PCG64(sequence))
