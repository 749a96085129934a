"""A decision about a patch, the numbers that it was made by, and what is kept about the patch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fleettune.data.tokens import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchHistory:
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


FRESH, OLD = STARTS = ("fresh", "old")
"""What a retune may start from: an untrained patch, or the old one."""


class Action(StrEnum):
    """What a device did about its patch in a night."""

    RETUNE = "retune"
    REUSE = "reuse"
    NEVER = "never"
    NONE = "none"
    INFEASIBLE = "infeasible"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision with the numbers that it saw.

    Attributes:
        action: What to do.
        reason: Why, as one lower-case word with underscores.
        drift: Drift of the release since the patch's own, or None where the rule did not look.
        strength: Strength of the patch, or None.
        read_bytes: Bytes that the rule read to decide, billed to the device.
        work_flop: FLOP that it took.
        read_weights: Base weights that it read, in numbers; billed at their stored size.
        passes: Examples that it scored, a forward pass each; billed as well.
        score: Number or probability that it decided by, or None.
        canary_before: What its canaries say of the old patch, in nats per token, or None.
        canary_worse: Nats per token by which they got worse, or None where that is not known.
        explored: 1 if it retunes at random against the rule, 0 if not, None if it never does.
        propensity: Probability with which a device that saw the same was to retune, or None.
        start: What it starts from: ``fresh``, or ``old`` for the old patch where that fits.
        history: What the rule keeps if the patch stays.
        gain: Nats by which the observer says that a retune helps, where an oracle asked; it is an
            observation and never among the numbers that are reported.
    """

    action: Action
    reason: str
    drift: float | None = None
    strength: float | None = None
    read_bytes: int = 0
    work_flop: float = 0.0
    read_weights: int = 0
    passes: tuple[tuple[Example, ...], ...] = ()
    score: float | None = None
    canary_before: float | None = None
    canary_worse: float | None = None
    explored: int | None = None
    propensity: float | None = None
    start: str = FRESH
    history: PatchHistory = field(default_factory=PatchHistory)
    gain: float | None = None


def check_start(start: str) -> None:
    """Raises ValueError if a retune cannot start from that."""
    if start == "fleet":
        raise ValueError("start=fleet is start=fresh in a run with fleet_patch=start: set both")
    if start not in STARTS:
        raise ValueError(f"start must be one of {STARTS}, got {start!r}")


FIRST_PATCH = Decision(action=Action.RETUNE, reason="first_patch")
"""What every rule that trains says as long as there is no patch."""

ON_TRIAL = Decision(action=Action.RETUNE, reason="trial")
"""A retune that is kept only where the observer says that it helps."""


def numbers_of(decision: Decision) -> dict[str, Any]:
    """Returns what is reported of a decision, by `fleettune.messages.report.Statistics` name."""
    return {
        "drift": decision.drift,
        "strength": decision.strength,
        "score": decision.score,
        "canary_before": decision.canary_before,
        "canary_worse": decision.canary_worse,
        "explored": decision.explored,
        "propensity": decision.propensity,
    }
