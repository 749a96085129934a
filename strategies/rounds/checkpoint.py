"""Checkpoints: where a server's rounds can last, and what it needs to go on from one.

A grid that can make rounds last offers `Checkpoint`'s two methods; ours does. Any other grid, such
as stock Flower's, is used as it is, and the run begins at its first round.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

from fleettune.adapters.patch import Patch
from fleettune.deltas.frames import read_frame, write_frame
from strategies.releases.publisher import ReleaseRecord
from strategies.rounds.sums import RoundSum

SCHEMA = 1


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
class KeptFleet:
    """A fleet patch: its arm, and its frame in base64."""

    arm: str
    frame: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What the server knows after a round.

    Random streams are keyed by seed, purpose and round, so seed and round stand for all of them.

    Attributes:
        seed: Key of the sampling.
        round: The round, 0-based.
        sums: One entry per arm and round so far.
        releases: What is out, oldest first.
        fleets: The fleet patches of those arms that have one.
        learned: What `strategies.learning.arm_learning.Learning.plain` says.
        rollouts: What `strategies.rollout.stages.Rollouts.plain` says.
        catalogue: What `strategies.catalogue.cataloguer.Cataloguer.plain` says.
    """

    seed: int
    round: int
    sums: tuple[RoundSum, ...]
    releases: tuple[ReleaseRecord, ...]
    fleets: tuple[KeptFleet, ...] = ()
    learned: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rollouts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    catalogue: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def plain(self) -> dict[str, Any]:
        """Returns the state as JSON can hold it."""
        return {"schema": SCHEMA, **asdict(self)}

    def patches(self) -> dict[str, Patch]:
        """Returns the fleet patches by arm."""
        return {entry.arm: read_frame(base64.b64decode(entry.frame)) for entry in self.fleets}


def kept_fleet(held: tuple[str, Patch]) -> KeptFleet:
    """Returns an arm's fleet patch as JSON can hold it."""
    return KeptFleet(arm=held[0], frame=base64.b64encode(write_frame(held[1])).decode())


def read_server_state(plain: Mapping[str, Any]) -> ServerState:
    """Returns the state that `ServerState.plain` wrote.

    Raises:
        ValueError: If it was written by another schema.
    """
    if plain["schema"] != SCHEMA:
        raise ValueError(f"server state must have schema {SCHEMA}, got {plain['schema']}")
    return ServerState(
        seed=plain["seed"],
        round=plain["round"],
        sums=tuple(RoundSum(**entry) for entry in plain["sums"]),
        releases=tuple(ReleaseRecord(**entry) for entry in plain["releases"]),
        fleets=tuple(KeptFleet(**entry) for entry in plain.get("fleets", ())),
        learned=plain.get("learned", {}),
        rollouts=plain.get("rollouts", {}),
        catalogue=plain.get("catalogue", {}),
    )
