"""Family of releases: what a vendor may do, from which every seed draws a train of its own.

A rule that is chosen on some trains and reported on others does not owe its result to one train.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleettune.data.composing import HABITS, TOPICS
from fleettune.seeds import Purpose, stream
from strategies.releases.schedule import KINDS, READS, ReleasePlan

_DRAWN = ("full", "low_rank", "reparametrised", "quantised")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFamily:
    """What releases are drawn from, each independently of the others.

    Attributes:
        count: Releases after release 0.
        kinds: Chance of every kind, relative to the others; kinds that need no file or fleet.
        steps: Fewest and most optimizer steps of a trained release, drawn evenly in logarithms.
        learning_rate: Lowest and highest peak rate of a full release, drawn likewise.
        low_rank_times: Factor on that rate for a low-rank release.
        leans: Most habits that one release moves; from none to this many, each to an option that
            is not the vendor's own.
        topics: Chance that a release is about two of the topics only.
        conversations: Of users outside the fleet in the corpus.
        batch: Windows per step.
        window: Tokens per window.
    """

    count: int
    kinds: Mapping[str, float] = field(default_factory=lambda: {"full": 1.0})
    steps: tuple[int, int]
    learning_rate: tuple[float, float]
    low_rank_times: float = 4.0
    leans: int = 0
    topics: float = 0.0
    conversations: int
    batch: int
    window: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"release.family.count must be >= 1, got {self.count}")
        if other := sorted(set(self.kinds) - set(_DRAWN)):
            raise ValueError(f"release.family.kinds must be of {_DRAWN}, got {other[0]!r}")
        if min(self.kinds.values(), default=-1) < 0 or not sum(self.kinds.values()) > 0:
            raise ValueError(
                "release.family.kinds must hold chances >= 0 with a sum above 0, "
                f"got {dict(self.kinds)}"
            )
        for name in ("steps", "learning_rate"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(
                    f"release.family.{name} must be two numbers above 0, the lower one first, "
                    f"got {low} and {high}"
                )
        if not 0 <= self.leans <= len(HABITS):
            raise ValueError(
                f"release.family.leans must be from 0 to {len(HABITS)}, got {self.leans}"
            )
        if not 0 <= self.topics <= 1:
            raise ValueError(f"release.family.topics must be from 0 to 1, got {self.topics}")


def draw_plans(family: ReleaseFamily, seed: int) -> tuple[ReleasePlan, ...]:
    """Returns the train of releases that a seed draws from a family.

    Releases are named after their number and kind, for example ``2_full``.

    Raises:
        ValueError: If a drawn plan breaks a rule of `ReleasePlan`, such as ``batch`` 0.
    """
    return tuple(_draw(family, seed, number) for number in range(1, family.count + 1))


def _draw(family: ReleaseFamily, seed: int, number: int) -> ReleasePlan:
    rng = stream(seed, Purpose.RELEASE_FAMILY, number)
    chances = np.array([family.kinds.get(kind, 0.0) for kind in KINDS])
    kind = KINDS[int(rng.choice(len(KINDS), p=chances / chances.sum()))]
    # everything is drawn in the same order whatever the kind, so that a change of `kinds` moves
    # nothing else
    rate = _log_uniform(rng, family.learning_rate)
    drawn: Mapping[str, Any] = {
        "steps": round(_log_uniform(rng, family.steps)),
        "learning_rate": rate * (family.low_rank_times if kind == "low_rank" else 1.0),
        "leans": _draw_leans(rng, family.leans),
        "about": _draw_topics(rng, family.topics),
        "scale": float(2.0 ** rng.integers(1, 4)),
        "bits": 8,
        "conversations": family.conversations,
        "batch": family.batch,
        "window": family.window,
        "rank": 16,
        "top_layers": 8,
    }
    read = {name: value for name, value in drawn.items() if name in READS[kind]}
    return ReleasePlan(name=f"{number}_{kind}", kind=kind, **read)


def _log_uniform(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    low, high = ends
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _draw_leans(rng: np.random.Generator, most: int) -> tuple[str, ...]:
    moved = rng.permutation(sorted(HABITS))[: int(rng.integers(most + 1))]
    return tuple(f"{name}={1 + int(rng.integers(len(HABITS[name]) - 1))}" for name in moved)


def _draw_topics(rng: np.random.Generator, chance: float) -> tuple[str, ...]:
    pair = tuple(str(name) for name in rng.permutation(TOPICS)[:2])
    return pair if rng.random() < chance else ()
