"""What settings are called: in the words in which they were typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulations.comparison.found_runs import FoundRun
from simulations.experiment.arms import POLICY_KEYS, read_choices
from simulations.experiment.option_groups import read_groups

ABSENT = "absent"
Words = Mapping[str, str]
"""A value by the key that was typed for it."""


def list_differences(settings: Sequence[FoundRun]) -> list[dict[str, str]]:
    """Returns for each setting, in the words that were typed, what not all of them share.

    A key of the configuration goes under the longest typed key that it belongs to, else under its
    group where the options differ, else under itself. A group that is named after another one by
    default (``release: ${model}``) is left out where that one is shown and nobody typed it.

    Args:
        settings: One run of each setting.
    """
    keys = sorted({key for one in settings for key in one.settings})
    differing = [
        key for key in keys if len({one.settings.get(key, ABSENT) for one in settings}) > 1
    ]
    typed = {_place_of(key): key for one in settings for key in one.typed}
    groups = {
        group.name: group.default
        for group in read_groups()
        if len({one.options.get(group.name) for one in settings}) > 1
    }
    owners = list(dict.fromkeys(_find_owner(key, typed, groups) for key in differing))
    order = {key: place for place, key in enumerate(typed.values())}
    shown = [
        key for key in owners if key in order or groups.get(key, "").strip("${}") not in owners
    ]
    shown.sort(key=lambda key: (key not in order, order.get(key, 0)))
    named = [{key: _value(one, key) for key in shown} for one in settings]
    # an option that has no such key says so already by its name
    return [
        {key: value for key, value in words.items() if value != ABSENT or not _is_part(key, shown)}
        for words in named
    ]


def _find_owner(key: str, typed: Words, groups: Words) -> str:
    parts = key.split(".")
    prefixes = [".".join(parts[:cut]) for cut in range(len(parts), 0, -1)]
    found = next((typed[prefix] for prefix in prefixes if prefix in typed), None)
    return found or (parts[0] if parts[0] in groups else key)


def _place_of(key: str) -> str:
    """Returns where in the configuration a typed key stands: of ``a@b.c`` it is ``b.c``."""
    return key.rpartition("@")[2]


def _value(run: FoundRun, key: str) -> str:
    known = (run.typed, run.options, run.settings)
    return next((one[key] for one in known if key in one), ABSENT)


def _is_part(key: str, shown: Sequence[str]) -> bool:
    return any(key.startswith(f"{other}.") for other in shown)


def name_arm(run: FoundRun, arm: str, differences: Words) -> str:
    """Returns what an arm of a setting is called: ``adaptation=always_reuse tuning.steps=4``.

    The arm that was chosen on the command line is called by what was typed for it. Any other one
    has its own name, and no policy that was typed is about it.

    Args:
        run: A run of the setting.
        arm: The name of the arm.
        differences: What tells the setting from others (`list_differences`).
    """
    others = [f"{key}={value}" for key, value in differences.items() if not _is_policy(key)]
    if arm != get_chosen_arm(run):
        return " ".join([arm, *others])
    return " ".join(
        [*(f"{key}={value}" for key, value in run.typed.items() if _is_policy(key)), *others]
    )


def get_chosen_arm(run: FoundRun) -> str | None:
    """Returns the arm that a command line asked for beside the reference; None without one."""
    chosen = read_choices([f"{key}={value}" for key, value in run.typed.items()])
    name = "+".join(chosen[key] for key in POLICY_KEYS if key in chosen)
    return name if name in run.summary["arms"] else None


def _is_policy(key: str) -> bool:
    return key.partition(".")[0] in POLICY_KEYS
