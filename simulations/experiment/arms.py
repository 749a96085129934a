"""Builds the arms of a run: policies that live side by side, the reference first.

Without a choice of the user's, the standard arms run. With one (``adaptation=X`` or any other
policy key) the chosen policy runs beside the reference, so that every run can report a saving.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from clients.adaptation import traits_of
from clients.policy import BUILT_IN, DevicePolicy, Quota
from clients.selection.annotation import Annotation
from clients.tuning.schedule import Tuning
from fleettune.data.exchanges import Population
from fleettune.records import build_value
from fleettune.shapes import Shapes
from simulations.experiment.option_groups import read_groups
from simulations.experiment.targets import build_target

log = logging.getLogger(__name__)

POLICY_KEYS = ("adaptation", "selection", "synthesis", "placement", "codec", "start")
PLAIN_PARTS: Mapping[str, type] = {
    "tuning": Tuning,
    "storage": Quota,
    "annotation": Annotation,
}
"""Keys of which an arm may change single fields."""
Plain = Mapping[str, Any]


def read_choices(overrides: Sequence[str]) -> Mapping[str, str]:
    """Returns what a command line chose, by policy key: an option's name, or field and value."""
    chosen: dict[str, str] = {}
    for override in overrides:
        name, _, value = override.lstrip("+").partition("=")
        key, _, field = name.partition(".")
        if key in POLICY_KEYS:
            part = f"{field}={value}" if field else value
            chosen[key] = f"{chosen[key]},{part}" if key in chosen else part
    return chosen


def build_arms(plain: Plain, chosen: Mapping[str, str]) -> dict[str, DevicePolicy]:
    """Returns the policies of a run by name.

    Args:
        plain: The whole configuration.
        chosen: What the user asked for, by policy key; empty for the standard arms.
    """
    reference = cast(Plain, plain["reference"])
    named = reference["name"]
    if not isinstance(named, str) or not named:
        raise ValueError(f"reference.name must be the name of an arm, got {named!r}")
    arms = {named: _policy(plain, reference, "reference")}
    if chosen:
        asked = {key: plain[key] if key in chosen else reference[key] for key in POLICY_KEYS}
        policy = _policy(plain, asked, "")
        if policy != arms[named]:
            arms["+".join(chosen[key] for key in POLICY_KEYS if key in chosen)] = policy
        return arms
    for name, changes in cast(Mapping[str, object], plain["arms"]).items():
        if changes is None:  # `arms.NAME=null` leaves a standard arm out
            continue
        if not isinstance(changes, Mapping):
            raise ValueError(f"arms.{name} must be a mapping of policy keys, got {changes!r}")
        own = cast(Plain, changes)
        known = (*POLICY_KEYS, *PLAIN_PARTS)
        unknown = sorted(set(own) - set(known))
        if unknown:
            raise ValueError(f"arms.{name}.{unknown[0]} is no policy key; known are {known}")
        arms[name] = _policy(plain, {**reference, **own}, f"arms.{name}")
    return arms


def check_choices(cfg: DictConfig, chosen: Mapping[str, str]) -> None:
    """Raises ValueError if a file of options chooses a policy that no arm would have.

    Args:
        cfg: The whole configuration.
        chosen: What the command line chose, by policy key.
    """
    for group in read_groups():
        key = group.name
        if key not in POLICY_KEYS or key in chosen or cfg[key] == cfg.reference[key]:
            continue
        file = files("conf") / key / f"{group.default}.yaml"
        if cfg[key] != OmegaConf.create(file.read_text("utf-8")):
            raise ValueError(
                f"{key} is chosen in a file of options, where no arm gets it: choose it on the "
                f"command line ({key}=NAME), or give it an arm with a line "
                f"`- /{key}@arms.ARM.{key}: NAME` in that file's defaults"
            )


def keep_fitting_arms(
    arms: Mapping[str, DevicePolicy], population: Population, shapes: Shapes, chosen: bool
) -> dict[str, DevicePolicy]:
    """Returns the arms that fit data and model; a standard arm that does not is left out.

    Raises:
        ValueError: If a chosen arm does not fit, or a placement does not fit the model.
    """
    kept: dict[str, DevicePolicy] = {}
    for name, policy in arms.items():
        policy.placement.check(shapes)
        traits, labelled = traits_of(policy.adaptation), bool(population.answers)
        misfit = labelled if traits.copier is not None else traits.label_prior and not labelled
        if misfit and chosen:
            raise ValueError(f"arm {name}: {_MISFITS[labelled]}")
        if misfit:
            are, needed = ("labels", "free text") if labelled else ("free text", "labels")
            log.info("arm %s is left out: answers of this data are %s, not %s", name, are, needed)
        else:
            kept[name] = policy
    return kept


_MISFITS = {
    False: "a rule that answers without the model, such as adaptation=user_prior, "
    "needs answers that are labels; these are free text",
    True: "a rule that copies answers, such as adaptation=copy_nearest, "
    "needs answers that are free text; these are labels",
}
"""Why a rule cannot answer here, by whether the answers of the data are labels."""


def list_foreign_types(policy: DevicePolicy) -> list[str]:
    """Returns the dotted paths of the policy's types that are not built in."""
    parts: list[object] = [getattr(policy, key) for key in POLICY_KEYS]
    types: list[type] = [type(part) for part in parts]
    return [
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in types
        if BUILT_IN.get(kind.__name__) is not kind
    ]


def _policy(plain: Plain, parts: Plain, where: str) -> DevicePolicy:
    prefix = f"{where}." if where else ""
    values = {key: build_target(parts[key], prefix + key) for key in POLICY_KEYS}
    fields = {"storage": "quota"}
    values |= {
        fields.get(key, key): build_value(
            kind, {**plain[key], **_changes(parts, key, prefix)}, {}, prefix + key
        )
        for key, kind in PLAIN_PARTS.items()
    }
    return DevicePolicy(**values)


def _changes(parts: Plain, key: str, prefix: str) -> Plain:
    changes: object = parts.get(key, {})
    if not isinstance(changes, Mapping):
        raise ValueError(f"{prefix}{key} must be a mapping of fields, got {changes!r}")
    return cast(Plain, changes)
