"""Builds an experiment, one frozen value, from Hydra's configuration and checks it whole.

The only module that sees a DictConfig. Every rule is checked here, before any model loads: unknown
keys, types, ranges, files, columns, ranks against the model's shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clients.policy import DevicePolicy, policy_types
from fleettune.backbone.causal_lm import (
    BUILT_IN_MODELS,
    BackboneSource,
    read_shapes,
    resolve_folder,
)
from fleettune.backbone.processor import CPU, REFERENCE
from fleettune.cohort.model_check import check_model
from fleettune.data.exchanges import Population
from fleettune.data.long_streams import StreamData
from fleettune.data.manners import MannersData
from fleettune.data.personas import SyntheticData
from fleettune.data.styles import StyledData
from fleettune.data.tokens import open_encoder
from fleettune.fleet.registry import Fleet, FleetData
from fleettune.records import build_value, to_record
from fleettune.releases.model_files import weight_files
from simulations.experiment import lexicons
from simulations.experiment import server_settings as server
from simulations.experiment.arms import (
    POLICY_KEYS,
    build_arms,
    keep_fitting_arms,
    list_foreign_types,
)
from simulations.experiment.device_fleet import build_fleet, name_data
from simulations.experiment.headlines import UNSEEN
from simulations.experiment.settings import CostSettings, EngineSettings, FleetSettings, RunSettings
from simulations.experiment.study_settings import StudySettings
from simulations.experiment.targets import build_target
from simulations.trackers import Tracker
from strategies.aggregation import Aggregation
from strategies.catalogue import CatalogueSource
from strategies.learning.guidance_rules import GuidanceRule
from strategies.plan import Arm, Plan
from strategies.releases.publisher import SourceModel
from strategies.releases.schedule import Schedule
from strategies.rollout.rules import Staging
from strategies.rounds.sampling import Panel, Uniform

RUN_KEYS = (
    *("seed", "rounds", "precision", "compute", "quality", "store"),
    *("keep_patches", "resume", "fleet_patch", "fleet_rank"),
)
KEYS = (
    *RUN_KEYS,
    *("model", "data", "fleet", "storage", "annotation", "lexicon"),
    *("cost", "link", "availability", "release", "tuning", "engine", "aggregation"),
    *("guidance", "rollout", "catalogue", "tracker"),
    *(*POLICY_KEYS, "reference", "arms", "study"),
)
"""All keys of a configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Everything that decides a run's results.

    Attributes:
        run: Seed, rounds, precision, processor, metric.
        cost: What is priced and shown.
        fleet_settings: How many devices, how they are sampled.
        fleet: The fleet as its devices know it.
        model: Where the backbone comes from.
        schedule: Releases.
        engine: How it is computed; never changes a result beyond rounding.
        arms: Policies by name, the reference first.
        study: Arms, seeds and claims of the study that this belongs to.
        metric: The headline metric, a key of `simulations.experiment.headlines.HEADLINES`.
        aggregation: How the server aggregates deltas.
        guidance: What the server makes of reported decisions.
        rollout: Whether a first cohort gets releases before the others.
        catalogue: What first tunes may start from.
        tracker: Where numbers go besides the run's own folder; never changes a result.
    """

    run: RunSettings
    cost: CostSettings
    fleet_settings: FleetSettings
    fleet: Fleet
    model: BackboneSource
    schedule: Schedule
    engine: EngineSettings
    arms: Mapping[str, DevicePolicy]
    study: StudySettings
    metric: str
    aggregation: Aggregation
    guidance: GuidanceRule
    rollout: Staging
    catalogue: CatalogueSource
    tracker: Tracker

    @property
    def reference(self) -> str:
        """Name of the arm that savings are measured against."""
        return next(iter(self.arms))

    @property
    def data_name(self) -> str:
        """Short name of the data, for reports."""
        return name_data(self.fleet.data)

    def plan(self) -> Plan:
        """Returns the run as the server sees it."""
        settings = self.fleet_settings
        sampling = Panel() if settings.sampled is None else Uniform(sampled=settings.sampled)
        return Plan(
            seed=self.run.seed,
            rounds=self.run.rounds,
            devices=settings.devices,
            arms=tuple(
                Arm(name=name, policy=json.dumps(to_record(policy)))
                for name, policy in self.arms.items()
            ),
            source=SourceModel(
                path=str(resolve_folder(self.model.path)),
                template=self.model.template,
                max_tokens=self.model.max_tokens,
            ),
            schedule=self.schedule,
            sampling=sampling,
            data=self.fleet.data,
            store=self.run.store,
            observe=True,
            aggregation=self.aggregation,
            guidance=self.guidance,
            rollout=self.rollout,
            catalogue=self.catalogue,
            joining=settings.joining,
            fleet_patch=self.run.fleet_patch,
            fleet_rank=self.run.fleet_rank,
        )


def build(cfg: DictConfig, chosen: Mapping[str, str] | None = None) -> Experiment:
    """Returns the experiment that a configuration describes.

    Args:
        cfg: The composed configuration.
        chosen: What the user asked for, by policy key; None or empty runs the standard arms.

    Raises:
        ValueError: Saying which key breaks which rule, its value, and what to do.
    """
    plain = _plain(cfg)
    run = _run(plain)
    model = cast(BackboneSource, build_target(plain["model"], "model"))
    folder = _model_folder(model)
    data = cast(FleetData, build_target(plain["data"], "data", seed=run.seed))
    _check_words(model, data)
    population = _population(data)
    settings = build_value(FleetSettings, plain["fleet"], {}, "fleet")
    _check_users(settings, population)
    arms = build_arms(plain, chosen or {})
    arms = keep_fitting_arms(arms, population, read_shapes(folder), bool(chosen))
    installed = tuple(
        sorted({path for policy in arms.values() for path in list_foreign_types(policy)})
    )
    policy_types(installed)
    engine = cast(EngineSettings, build_target(plain["engine"], "engine"))
    _check_together(run, engine)
    aggregation = server.build_aggregation(plain["aggregation"], arms)
    cost = build_value(CostSettings, plain["cost"], {}, "cost")
    study = build_value(StudySettings, plain["study"], {}, "study")
    study.check_arms(tuple(arms))
    run.quality.check_arms(tuple(arms))
    schedule = server.build_schedule(plain["release"], folder, population, run.seed)
    return Experiment(
        run=run,
        cost=cost,
        metric=_metric(run, data, population),
        fleet_settings=settings,
        fleet=build_fleet(plain, run, settings, data, cost, installed),
        model=model,
        schedule=schedule,
        engine=engine,
        arms=arms,
        study=study,
        aggregation=aggregation,
        guidance=server.build_guidance(plain["guidance"], arms),
        rollout=server.build_staging(plain["rollout"], schedule, run.fleet_patch, settings.joining),
        catalogue=server.build_catalogue(
            plain["catalogue"],
            arms,
            read_shapes(folder),
            settings.devices,
            run.fleet_patch,
        ),
        tracker=_tracker(plain["tracker"]),
    )


def _tracker(node: object) -> Tracker:
    tracker = build_target(node, "tracker")
    if not isinstance(tracker, Tracker):
        raise ValueError(f"tracker must have check and open, got {type(tracker).__name__}")
    tracker.check()
    return tracker


def _check_words(model: BackboneSource, data: FleetData) -> None:
    """Raises ValueError if a built-in model does not know the words of a built-in world."""
    first = isinstance(data, SyntheticData | StreamData | StyledData)
    fitting = "pocket_v1" if first else "pocket"
    built_in = first or isinstance(data, MannersData)
    if built_in and model.path in BUILT_IN_MODELS and model.path != fitting:
        raise ValueError(
            f"model={model.name} was not trained on the words of this data, {name_data(data)}; "
            f"add model={fitting}"
        )


def _check_users(settings: FleetSettings, population: Population) -> None:
    if settings.devices > population.users:
        raise ValueError(
            f"fleet.devices must be <= {population.users}, the users of this data, "
            f"got {settings.devices}"
        )


def _plain(cfg: DictConfig) -> dict[str, Any]:
    lexicons.register_resolver()
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{error.full_key or 'the configuration'} must be given: {reason}"
        ) from error
    named = {key: value for key, value in cast(dict[str, Any], plain).items() if key != "hydra"}
    unknown = sorted(set(named) - set(KEYS))
    if unknown:
        raise ValueError(f"{unknown[0]} is not a known key of the configuration; known are {KEYS}")
    missing = [key for key in KEYS if key not in named]
    if missing:
        raise ValueError(f"{missing[0]} must be given; it was taken out of the configuration")
    return named


def _run(plain: Mapping[str, Any]) -> RunSettings:
    try:
        return build_value(RunSettings, {key: plain[key] for key in RUN_KEYS}, {}, "run")
    except ValueError as error:
        # these keys stand at the top of the configuration, in no section of their own
        raise ValueError(str(error).removeprefix("run: ").removeprefix("run.")) from error


def _check_together(run: RunSettings, engine: EngineSettings) -> None:
    if run.resume is not None and engine.name == "flower":
        raise ValueError("resume needs a checkpoint, and engine=flower keeps none; run it again")
    if engine.name == "flower" and run.precision != REFERENCE:
        raise ValueError(
            f"engine=flower computes in reference precision only, got precision={run.precision}"
        )
    if run.compute.device != CPU and engine.name != "inprocess":
        raise ValueError(
            f"compute.device must be cpu with engine={engine.name}, got {run.compute.device}; "
            "only engine=inprocess computes elsewhere"
        )


def _model_folder(model: BackboneSource) -> Path:
    """Returns the model's folder; one that a user brings is compared with transformers first."""
    model.check()
    folder = resolve_folder(model.path)
    weight_files(folder)
    open_encoder(folder, model.template, model.max_tokens)
    if model.path not in BUILT_IN_MODELS:
        check_model(folder, model.template, model.max_tokens)
    return folder


def _population(data: FleetData) -> Population:
    try:
        data.check()
        return data.open()
    except ValueError as error:
        known = str(error).startswith("data.")
        raise ValueError(str(error) if known else f"data: {error}") from error


def _metric(run: RunSettings, data: FleetData, population: Population) -> str:
    """Returns the headline metric: as asked, or the one that fits the data."""
    if run.quality.metric == "neg_mae" and not population.answers:
        raise ValueError("quality.metric=neg_mae needs answers that are labels, not free text")
    if run.quality.generate and population.answers:
        raise ValueError(
            "quality.generate must be 0 where answers are labels, "
            f"got {run.quality.generate}: ROUGE-1 is of free text"
        )
    if run.quality.metric != "auto":
        return run.quality.metric
    if isinstance(data, MannersData):
        return UNSEEN
    if isinstance(data, SyntheticData | StreamData | StyledData):
        return "exact_match"
    return "neg_mae" if population.answers else "neg_nll"
