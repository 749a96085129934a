"""The server's plan: everything that the ServerApp is told, as one local file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fleettune.fleet.joining import FROM_THE_START, Join, Joining
from fleettune.fleet.registry import DATA_TYPES, FleetData
from fleettune.records import OMIT_DEFAULT, Record, Types, from_record, read_json, to_record
from fleettune.releases.model_files import file_digest
from strategies.aggregation import (
    Aggregation,
    ExactMean,
    FactorMean,
    Ffa,
    MedianOfMeans,
    NormClip,
    Svd,
    TrimmedMean,
    ZeroPad,
)
from strategies.aggregation.fleet_patch import NONE, check_use
from strategies.catalogue import (
    Adapter,
    CatalogueSource,
    ClusterCatalogue,
    CorporaCatalogue,
    Explain,
    ImportedCatalogue,
    StyleCatalogue,
    Uncatalogued,
)
from strategies.learning.guidance_rules import Fitted, Fixed, GuidanceRule, Unguided
from strategies.releases.publisher import SourceModel
from strategies.releases.schedule import ReleasePlan, Schedule, check_merged
from strategies.rollout.rules import Staged, Staging, Unstaged, check_staging
from strategies.rounds.sampling import Panel, Sampling, Uniform
from strategies.rounds.sums import STACK

NO_CATALOGUE = Uncatalogued()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One policy of a run: its name and its record as JSON, opaque to the server."""

    name: str
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run as the server sees it.

    Attributes:
        seed: The experiment's seed.
        rounds: Number of rounds.
        devices: Registered devices; the first round waits for all of them.
        arms: The policies that live side by side.
        source: The model that everything starts from.
        schedule: When releases come and how they are made.
        sampling: Which devices take part in a round.
        data: Where text of users outside the fleet comes from.
        store: Folder of the release store.
        observe: True if an observer wants quality.
        aggregation: How deltas are aggregated.
        fleet_patch: Whether devices get the fleet patch
            (`strategies.aggregation.fleet_patch.USES`).
        fleet_rank: Its largest rank.
        guidance: How what devices reported becomes what later releases come with.
        rollout: Whether a first cohort gets releases before the others.
        catalogue: What first tunes may start from.
        joining: Which devices join when.
    """

    seed: int
    rounds: int
    devices: int
    arms: tuple[Arm, ...]
    source: SourceModel
    schedule: Schedule
    sampling: Sampling
    data: FleetData
    store: str
    observe: bool
    aggregation: Aggregation = STACK
    fleet_patch: str = NONE
    fleet_rank: int = 8
    guidance: GuidanceRule = field(default_factory=Unguided)
    rollout: Staging = field(default_factory=Unstaged)
    catalogue: CatalogueSource = field(default=NO_CATALOGUE, metadata=OMIT_DEFAULT)
    joining: Joining = field(default=FROM_THE_START, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        check_use(self.fleet_patch, self.fleet_rank)
        check_merged(self.fleet_patch, self.schedule)
        check_staging(self.rollout, self.schedule.every, self.fleet_patch)

    def policies(self) -> Mapping[str, Record]:
        """Returns the policy record of every arm.

        Raises:
            ValueError: If one is no JSON.
        """
        return {arm.name: cast(Record, read_json(arm.policy, arm.name)) for arm in self.arms}

    @property
    def data_key(self) -> str:
        """What identifies the data in a release's key: settings, and files by content."""
        record = to_record(self.data)
        contents = {str(file): file_digest(file) for file in named_files(record)}
        return json.dumps([record, contents], sort_keys=True)

    def write(self, file: Path) -> None:
        """Writes the plan as JSON."""
        file.write_text(json.dumps(to_record(self)))


def named_files(record: object) -> list[Path]:
    """Returns the files that a record of settings names under ``path``, as far as they exist."""
    if isinstance(record, list):
        return [file for part in cast(list[object], record) for file in named_files(part)]
    if not isinstance(record, dict):
        return []
    fields = cast(dict[str, object], record)
    own = fields.get("path")
    files = [Path(own)] if isinstance(own, str) and Path(own).is_file() else []
    return files + [file for part in fields.values() for file in named_files(part)]


AGGREGATIONS = (ExactMean, Svd, Ffa, FactorMean, ZeroPad, NormClip, TrimmedMean, MedianOfMeans)
"""The rules of aggregation that a plan may name."""

CATALOGUES = (Uncatalogued, StyleCatalogue, CorporaCatalogue, ImportedCatalogue, ClusterCatalogue)
"""The sources of catalogues that a plan may name."""

_TYPES: Types = {
    **DATA_TYPES,
    **{cls.__name__: cls for cls in AGGREGATIONS},
    **{cls.__name__: cls for cls in (Unguided, Fitted, Fixed, Unstaged, Staged)},
    **{cls.__name__: cls for cls in (*CATALOGUES, Explain, Adapter, Joining, Join)},
    **{cls.__name__: cls for cls in (Plan, Arm, SourceModel, Schedule, ReleasePlan)},
    **{cls.__name__: cls for cls in (Panel, Uniform)},
}


def read_plan(file: Path) -> Plan:
    """Returns the plan that `Plan.write` wrote.

    Raises:
        ValueError: If the file does not describe a plan.
    """
    plan = from_record(read_json(file.read_bytes(), str(file)), _TYPES, "plan")
    if not isinstance(plan, Plan):
        raise ValueError(f"{file} must describe a Plan, got {type(plan).__name__}")
    return plan
