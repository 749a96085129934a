"""Server settings: the rules that the server follows, from their nodes of the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from clients.policy import DevicePolicy
from simulations.targets import configured
from strategies.aggregation import Aggregation
from strategies.ffa import Ffa
from strategies.fleet_patch import check_merged
from strategies.guiding import Guiding
from strategies.plan import AGGREGATIONS
from strategies.schedule import Schedule
from strategies.staging import Staging, check_staging


def aggregation_rule(node: object, arms: Mapping[str, DevicePolicy]) -> Aggregation:
    """Returns how deltas are aggregated.

    Raises:
        ValueError: If the rule is unknown, or the arms do not fit it.
    """
    rule = configured(node, "aggregation")
    if isinstance(rule, Ffa) and not all(policy.tuning.frozen_a for policy in arms.values()):
        raise ValueError("aggregation=ffa needs one A on all devices: add +tuning.frozen_a=true")
    if not isinstance(rule, AGGREGATIONS):
        known = ", ".join(kind.__name__ for kind in AGGREGATIONS)
        raise ValueError(f"aggregation must be one of {known}, got {type(rule).__name__}")
    return rule


def guidance_rule(node: object) -> Guiding:
    """Returns what the server makes of reported decisions.

    Raises:
        ValueError: If the rule is unknown.
    """
    rule = configured(node, "guidance")
    if not isinstance(rule, Guiding):
        raise ValueError(f"guidance must be Unguided, Fitted or Fixed, got {type(rule).__name__}")
    return rule


def staging_rule(node: object, schedule: Schedule, fleet_patch: str) -> Staging:
    """Returns how releases go out.

    Raises:
        ValueError: If the rule is unknown, or does not fit the schedule or the fleet patch.
    """
    rule = configured(node, "rollout")
    if not isinstance(rule, Staging):
        raise ValueError(f"rollout must be Unstaged or Staged, got {type(rule).__name__}")
    check_staging(rule, schedule.every, fleet_patch)
    check_merged(fleet_patch, schedule)
    return rule
