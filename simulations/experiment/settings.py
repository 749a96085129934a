"""Holds the plain settings of a run, as frozen values that check their own rules."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleettune.backbone.processor import check_precision, check_processor
from fleettune.cost.battery import SOC_FLOOR
from fleettune.cost.carbon import INTENSITIES, WORLD
from fleettune.cost.pricing import PricedModel
from fleettune.fleet.joining import FROM_THE_START, Join, Joining
from fleettune.fleet.registry import CounterfactualSettings
from simulations.experiment.headlines import HEADLINES
from strategies.aggregation.fleet_patch import NONE, check_use

METRICS = ("auto", *HEADLINES)
SAMPLINGS = ("panel", "uniform")
ENGINES = ("inprocess", "ray", "flower")


@dataclass(frozen=True, slots=True, kw_only=True)
class QualitySettings:
    """How the observer looks at quality.

    Attributes:
        metric: What heads the tables; ``auto`` takes the one that fits the data.
        generate: Later exchanges whose answer the model writes, for ROUGE-1.
        new_tokens: Most tokens of such an answer.
        counterfactual: Arms whose decisions are judged by what a retune gains on the days to come.
        counterfactual_days: How many days those are.
    """

    metric: str
    generate: int = 0
    new_tokens: int = 48
    counterfactual: tuple[str, ...] = ()
    counterfactual_days: int = 1

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"quality.metric must be one of {METRICS}, got {self.metric!r}")
        if self.generate < 0:
            raise ValueError(f"quality.generate must be >= 0 exchanges, got {self.generate}")
        if self.new_tokens < 1:
            raise ValueError(f"quality.new_tokens must be >= 1 token, got {self.new_tokens}")
        if self.metric == "rouge1" and self.generate == 0:
            raise ValueError("quality.metric=rouge1 needs quality.generate >= 1 exchange, got 0")
        # its own rules are checked where it is made
        CounterfactualSettings(arms=self.counterfactual, days=self.counterfactual_days)

    @property
    def counterfactual_settings(self) -> CounterfactualSettings:
        """Whose decisions are judged."""
        return CounterfactualSettings(arms=self.counterfactual, days=self.counterfactual_days)

    def check_arms(self, arms: Sequence[str]) -> None:
        """Raises ValueError if a decision is to be judged of an arm that does not run."""
        if missing := [name for name in self.counterfactual if name not in arms]:
            raise ValueError(
                f"quality.counterfactual names arm {missing[0]!r}, which does not run; "
                f"arms are {', '.join(arms)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeSettings:
    """Where passes run: ``cpu``, or ``cuda`` on a machine that has it."""

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What a run is, apart from who takes part.

    Attributes:
        seed: Key of every random stream.
        rounds: Nights to simulate.
        precision: ``reference`` is fp32; ``fast`` a bf16 backbone with fp32 adapters, an error
            where the processor has no bf16 units; ``auto`` takes what it has.
        compute: The processor.
        quality: The headline metric.
        store: Folder of the release store.
        keep_patches: Devices, from number 0 on, whose last patch stays in the run's folder.
        fleet_patch: Whether devices get the fleet patch
            (`strategies.aggregation.fleet_patch.USES`).
        fleet_rank: Its largest rank at a site.
        resume: Folder of the interrupted run that this one continues; None for a new run.
    """

    seed: int
    rounds: int
    precision: str
    compute: ComputeSettings
    quality: QualitySettings
    store: str
    keep_patches: int
    fleet_patch: str = NONE
    fleet_rank: int = 8
    resume: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be >= 0 and < 2^32, got {self.seed}")
        if self.rounds < 1:
            raise ValueError(f"rounds must be >= 1 night, got {self.rounds}")
        if self.keep_patches < 0:
            raise ValueError(f"keep_patches must be >= 0 devices, got {self.keep_patches}")
        check_use(self.fleet_patch, self.fleet_rank)
        check_processor(self.compute.device)
        check_precision(self.precision, self.compute.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSettings:
    """What is priced, and which views of it are shown.

    Attributes:
        model: Whose shapes are priced (`fleettune.cost.pricing.TARGETS`), or ``own``.
        tokens_ratio: Its tokens per simulated token.
        bits_per_weight: Stored size of one of its frozen weights.
        network: Whether the infrastructure between server and access point gets its ledger.
        country: Whose electricity the view in grams of CO2e is for (`fleettune.cost.carbon`).
    """

    model: str
    tokens_ratio: float
    bits_per_weight: float = 16.0
    network: bool = False
    country: str = WORLD

    def __post_init__(self) -> None:
        if self.country not in INTENSITIES:
            known = ", ".join(INTENSITIES)
            raise ValueError(f"cost.country must be one of {known}, got {self.country!r}")

    @property
    def priced(self) -> PricedModel:
        """What the devices know of it."""
        return PricedModel(
            model=self.model,
            tokens_ratio=self.tokens_ratio,
            bits_per_weight=self.bits_per_weight,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Who takes part.

    Attributes:
        devices: Registered devices.
        sampling: ``panel``: all devices live through all nights; ``uniform``: a sample per night.
        sampled: Devices per night under ``uniform``; null under ``panel``.
        mix: Share of every hardware profile, by its name; 0 leaves one out.
        represents: Devices that the simulated ones stand for, in totals; None: themselves.
        deadline_s: Seconds that the server waits for a device from its start; None: for ever.
        battery_floor: State of charge below which no work starts, from 0 to 1.
        profiles: Folder of the user's own device profiles, besides those of conf/hardware.
        join: Parts of the fleet that join in the middle of the run.
    """

    devices: int
    sampling: str
    sampled: int | None
    mix: Mapping[str, float]
    represents: int | None = None
    deadline_s: float | None = None
    battery_floor: float = SOC_FLOOR
    profiles: str | None = None
    join: tuple[Join, ...] = ()

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ValueError(f"fleet.devices must be >= 1, got {self.devices}")
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"fleet.sampling must be one of {SAMPLINGS}, got {self.sampling!r}")
        if (self.sampling == "uniform") != (self.sampled is not None):
            raise ValueError(
                "fleet.sampled must be given with fleet.sampling=uniform and only then, "
                f"got sampling {self.sampling} with sampled {self.sampled}"
            )
        if self.sampled is not None and not 1 <= self.sampled <= self.devices:
            raise ValueError(
                f"fleet.sampled must be from 1 to fleet.devices ({self.devices}), "
                f"got {self.sampled}"
            )
        _check_totals_and_time(self)
        if self.join:
            Joining(devices=self.devices, parts=self.join)
        if not any(share > 0 for share in self.mix.values()):
            raise ValueError(f"fleet.mix must give some profile a share > 0, got {self.mix}")

    @property
    def joining(self) -> Joining:
        """Which devices join when."""
        if not self.join:
            return FROM_THE_START
        return Joining(devices=self.devices, parts=self.join)

    def count_present(self, night: int) -> int:
        """Returns how many devices take part in a night, counted from 0."""
        joined = self.joining.count_joined(night) if self.join else self.devices
        return min(joined, self.sampled or joined)


def _check_totals_and_time(fleet: FleetSettings) -> None:
    if fleet.represents is not None and fleet.represents < fleet.devices:
        raise ValueError(
            f"fleet.represents must be null or >= fleet.devices ({fleet.devices}), "
            f"got {fleet.represents}"
        )
    if fleet.deadline_s is not None and not 0 < fleet.deadline_s < math.inf:
        raise ValueError(
            f"fleet.deadline_s must be null or finite and > 0 s, got {fleet.deadline_s}"
        )
    if not 0 <= fleet.battery_floor <= 1:
        raise ValueError(f"fleet.battery_floor must be from 0 to 1, got {fleet.battery_floor}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How a run is computed.

    Attributes:
        name: Which engine.
        cohort_size: Devices computed together.
        workers: Processes that compute; 1 computes in the main process. Changes no result.
        threads: Threads of the matrix library per process; part of the bytes of a result.
        address: The Ray cluster that ``ray`` joins, ``auto`` or host:port; None starts one.
    """

    name: str
    cohort_size: int
    workers: int
    threads: int
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ValueError(f"engine.name must be one of {ENGINES}, got {self.name!r}")
        for name in ("cohort_size", "workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"engine.{name} must be >= 1, got {getattr(self, name)}")
        if self.name == "flower" and (self.workers, self.cohort_size) != (1, 1):
            raise ValueError(
                "engine=flower computes one device at a time, so engine.workers and "
                f"engine.cohort_size must be 1, got {self.workers} and {self.cohort_size}"
            )
        if self.address is not None and self.name != "ray":
            raise ValueError(
                f"engine.address is for engine=ray only, got {self.address!r} with {self.name}"
            )
        if self.address is not None and not re.fullmatch(r"auto|\S+:\d+", self.address):
            raise ValueError(
                f"engine.address must be null, auto or host:port, got {self.address!r}"
            )
