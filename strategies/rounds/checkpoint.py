"""Checkpoints: where a server's rounds can last, and what it needs to go on from one.

A grid that can make rounds last offers `Checkpoint`'s two methods; ours does. Any other grid, such
as stock Flower's, is used as it is, and the run begins at its first round.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

from fleettune.adapters.patch import Patch
from fleettune.deltas.frames import read_frame, write_frame
from fleettune.records import Types, from_record, to_record
from fleettune.releases.guidance import Guidance
from strategies.learning.arm_learning import ArmLearning
from strategies.learning.calibration import CalibratedRule, ReleaseDecision, RetuneRule
from strategies.learning.decision_reports import DecisionReport
from strategies.learning.decision_sums import (
    Counts,
    DecisionTotals,
    Evidence,
    ReuseStatistics,
    Tally,
)
from strategies.learning.guidance_rules import ReleaseGuidance
from strategies.learning.quantile_sketch import Sketch
from strategies.releases.publisher import ReleaseRecord
from strategies.rollout.forecast import Forecast
from strategies.rollout.intervals import Interval
from strategies.rollout.rules import RolloutDecision
from strategies.rollout.stages import ArmRollout, JudgedRelease, StagedRelease
from strategies.rounds.arm_state import ArmState
from strategies.rounds.sums import RoundSum

SCHEMA = 2


@runtime_checkable
class Checkpoint(Protocol):
    """Makes rounds last."""

    def commit_round(self, round_number: int, server_state: Mapping[str, Any]) -> None:
        """Makes a round last, with a server state that JSON can hold; all of it or nothing."""
        ...

    def restored_state(self) -> Mapping[str, Any] | None:
        """Returns the server state of the last such round; None before the first one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What the server knows after a round.

    Random streams are keyed by seed, purpose and round, so seed and round stand for all of them.

    Attributes:
        seed: Key of the sampling.
        round: The round, 0-based.
        arms: Every arm by name.
        releases: What is out, oldest first.
        catalogue: What `strategies.catalogue.cataloguer.Cataloguer.plain` says.
    """

    seed: int
    round: int
    arms: Mapping[str, ArmState]
    releases: tuple[ReleaseRecord, ...]
    catalogue: Mapping[str, Any]


_TYPES: Types = {
    cls.__name__: cls
    for cls in (
        *(ServerState, ArmState, RoundSum, ReleaseRecord),
        *(ArmLearning, DecisionTotals, ReuseStatistics, Tally, Counts, Sketch, Evidence),
        *(DecisionReport, ReleaseGuidance, Guidance, CalibratedRule, RetuneRule, ReleaseDecision),
        *(ArmRollout, StagedRelease, JudgedRelease, RolloutDecision, Forecast, Interval),
    )
}


def write_server_state(state: ServerState) -> dict[str, Any]:
    """Returns a state as JSON can hold it; fleet patches are frames in base64, by arm."""
    fleets = {
        arm: base64.b64encode(write_frame(one.fleet)).decode()
        for arm, one in state.arms.items()
        if one.fleet is not None
    }
    arms = {arm: replace(one, fleet=None) for arm, one in state.arms.items()}
    return {"schema": SCHEMA, "fleets": fleets, "state": to_record(replace(state, arms=arms))}


def read_server_state(plain: Mapping[str, Any]) -> ServerState:
    """Returns the state that `write_server_state` wrote.

    Raises:
        ValueError: If it was written by another schema, or is damaged.
    """
    if plain.get("schema") != SCHEMA:
        raise ValueError(f"server state must have schema {SCHEMA}, got {plain.get('schema')!r:.80}")
    state = from_record(plain.get("state"), _TYPES, "server state")
    told: object = plain.get("fleets")
    if not isinstance(state, ServerState) or not isinstance(told, dict):
        raise ValueError("server state must hold a ServerState and the fleet patch of every arm")
    fleets = {arm: _fleet(one) for arm, one in cast(dict[str, object], told).items()}
    arms = {arm: replace(one, fleet=fleets.get(arm)) for arm, one in state.arms.items()}
    return replace(state, arms=arms)


def _fleet(told: object) -> Patch:
    try:
        return read_frame(base64.b64decode(cast(str, told)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a fleet patch must be a frame in base64, is not: {error}") from error
