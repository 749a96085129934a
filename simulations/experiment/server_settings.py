"""Builds the rules that the server follows from their nodes of the configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from clients.adaptation import traits_of
from clients.placement.rules import StartingRule
from clients.policy import DevicePolicy
from clients.start import Mixture, Scratch
from fleettune.data.exchanges import Population
from fleettune.data.manners import ManneredPopulation, lean
from fleettune.fleet.joining import FROM_THE_START, Joining
from fleettune.records import build_value
from fleettune.shapes import Shapes
from simulations.experiment.question_lists import read_questions
from simulations.experiment.targets import build_target
from strategies.aggregation import Aggregation, Ffa
from strategies.catalogue import CatalogueSource, ClusterCatalogue, Uncatalogued
from strategies.learning.guidance_rules import Fitted, GuidanceRule
from strategies.plan import AGGREGATIONS, CATALOGUES
from strategies.releases.family import ReleaseFamily, draw_plans
from strategies.releases.given_files import check_given_files
from strategies.releases.schedule import Schedule, check_merged
from strategies.rollout.rules import Staged, Staging, check_staging

log = logging.getLogger(__name__)


def build_schedule(
    node: Mapping[str, Any], folder: Path, population: Population, seed: int
) -> Schedule:
    """Returns when releases come and how they are made.

    A ``family`` in place of ``plans`` draws them with the seed. Where users have no manners to lean
    to, releases are trained on their text as it is, with a line in the log.

    Raises:
        ValueError: If it breaks a rule, a checkpoint or corpus of it cannot be had, or it leans to
            what the population does not have.
    """
    schedule = build_value(Schedule, _draw_family(node, seed), {}, "release")
    if not isinstance(population, ManneredPopulation):
        schedule = _without_leans(schedule)
    check_given_files(schedule, folder)
    for plan in (schedule.initial, *schedule.plans):
        if plan is not None:
            try:
                lean(population, plan.leans, plan.about)
            except ValueError as error:
                raise ValueError(f"release {plan.name}: {error}") from error
    return schedule


def _draw_family(node: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """Returns the node with plans, drawn with the seed where it has a family in their place."""
    if "family" not in node:
        return node
    if "plans" in node:
        raise ValueError("release must hold plans or a family, got both: leave one of them out")
    family = node["family"]
    if not isinstance(family, Mapping):
        raise ValueError(f"release.family must hold the keys of a family, got {family!r}")
    others = {name: value for name, value in node.items() if name != "family"}
    given = cast(Mapping[str, Any], family)
    drawn = draw_plans(build_value(ReleaseFamily, given, {}, "release.family"), seed)
    return {**others, "plans": [asdict(plan) for plan in drawn]}


def _without_leans(schedule: Schedule) -> Schedule:
    leaning = [plan.name for plan in schedule.plans if plan.leans or plan.about]
    if leaning:
        log.warning(
            "leans and about of the releases %s are left out: only users of data=synthetic have "
            "manners to lean to",
            ", ".join(leaning),
        )
    plans = (replace(plan, leans=(), about=()) for plan in schedule.plans)
    return replace(schedule, plans=tuple(plans))


def build_aggregation(node: object, arms: Mapping[str, DevicePolicy]) -> Aggregation:
    """Returns how deltas are aggregated.

    Raises:
        ValueError: If the rule is unknown, or the arms do not fit it.
    """
    rule = build_target(node, "aggregation")
    if isinstance(rule, Ffa) and not all(policy.tuning.frozen_a for policy in arms.values()):
        raise ValueError("aggregation=ffa needs one A on all devices: add +tuning.frozen_a=true")
    if not isinstance(rule, AGGREGATIONS):
        known = ", ".join(kind.__name__ for kind in AGGREGATIONS)
        raise ValueError(f"aggregation must be one of {known}, got {type(rule).__name__}")
    return rule


def build_guidance(node: object, arms: Mapping[str, DevicePolicy]) -> GuidanceRule:
    """Returns what the server makes of reported decisions.

    Raises:
        ValueError: If the rule is unknown, or learns from what no arm can report.
    """
    rule = build_target(node, "guidance")
    if not isinstance(rule, GuidanceRule):
        raise ValueError(f"guidance must be Unguided, Fitted or Fixed, got {type(rule).__name__}")
    if isinstance(rule, Fitted) and not any(map(_measures_gains, arms.values())):
        raise ValueError(
            "guidance=fitted learns from what retunes gain on exchanges that never train, and no "
            "arm keeps any out: set adaptation.canary=true adaptation.canary_share=0.1 where "
            "adaptation=edgetune, or adaptation.share=0.2 where adaptation=canary"
        )
    return rule


def _measures_gains(policy: DevicePolicy) -> bool:
    kept_out = traits_of(policy.adaptation).kept_out
    return kept_out is not None and kept_out.share > 0


def build_staging(
    node: object, schedule: Schedule, fleet_patch: str, joining: Joining = FROM_THE_START
) -> Staging:
    """Returns how releases go out.

    Raises:
        ValueError: If the rule is unknown, or does not fit the schedule, the fleet patch or who
            joins.
    """
    rule = build_target(node, "rollout")
    if not isinstance(rule, Staging):
        raise ValueError(f"rollout must be Unstaged or Staged, got {type(rule).__name__}")
    check_staging(rule, schedule.every, fleet_patch)
    check_merged(fleet_patch, schedule)
    if isinstance(rule, Staged) and joining.parts:
        raise ValueError("rollout=staged needs a fleet without fleet.join, whose cohorts are whole")
    return rule


def build_catalogue(
    node: object,
    arms: Mapping[str, DevicePolicy],
    shapes: Shapes,
    devices: int,
    fleet_patch: str,
) -> CatalogueSource:
    """Returns what first tunes may start from.

    Args:
        node: Its node of the configuration.
        arms: The policies.
        shapes: The model's.
        devices: Of the fleet.
        fleet_patch: Whether devices get the fleet patch.

    Raises:
        ValueError: If the rule is unknown, its entries cannot be made, or an arm starts from a
            catalogue that is not there or that it could not take up.
    """
    rule = build_target(read_questions(node), "catalogue")
    if not isinstance(rule, CATALOGUES):
        known = ", ".join(kind.__name__ for kind in CATALOGUES)
        raise ValueError(f"catalogue must be one of {known}, got {type(rule).__name__}")
    for name, policy in arms.items():
        if not isinstance(policy.start, Scratch):
            _check_start(name, policy, rule)
    if not isinstance(rule, Uncatalogued):
        rule.check(shapes)
    if isinstance(rule, ClusterCatalogue):
        rule.check_fleet(devices, fleet_patch)
    return rule


def _check_start(name: str, policy: DevicePolicy, rule: CatalogueSource) -> None:
    if isinstance(rule, Uncatalogued):
        raise ValueError(
            f"arm {name} starts from a catalogue: add catalogue=styles, corpora, imported or "
            "clusters"
        )
    if isinstance(policy.start, Mixture) and rule.explain.shrink is None:
        raise ValueError(
            f"arm {name}: start.spread counts in the unit that whitening brings; "
            "catalogue.explain.shrink must be > 0, got null; or take start=nearest"
        )
    if policy.tuning.frozen_a:
        raise ValueError(f"arm {name}: tuning.frozen_a must be false with a start but scratch")
    if isinstance(policy.placement, StartingRule):
        raise ValueError(
            f"arm {name}: placement must not train before it places with a start but scratch"
        )
