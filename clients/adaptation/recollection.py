"""Recollection: the numbers that a rule of adaptation keeps beside the patch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """What a device knows of its patch since the tune; all of it ends with the next one.

    Attributes:
        canary: Nats per token of its canaries right after the tune, on the release tuned; None
            where it had none.
        worse: Nats per token by which releases made its canaries worse since, each measured on the
            canaries of its own night.
        path: Square root of the drift within the patch's subspaces, added up over the releases
            since: an upper bound of that of their sum, by the triangle inequality.
        tuned_day: Last day whose exchanges the tune could see; None before the first.
    """

    canary: float | None = None
    worse: float = 0.0
    path: float = 0.0
    tuned_day: int | None = None
