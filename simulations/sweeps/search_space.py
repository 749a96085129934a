"""Reads ranges in Hydra's grammar as a space that Optuna samples, and points of it as overrides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from simulations.sweeps.kept_runs import parse_overrides

Space = Mapping[str, BaseDistribution]
"""What is searched, by key; a key that a run adds begins with +."""


def read_space(overrides: Sequence[str]) -> tuple[list[str], Space]:
    """Returns the overrides that all trials share, and the space of the others.

    ``choice(a,b)`` and ``a,b`` are categories, ``range(24,96,24)`` numbers at equal steps without
    the last one, ``interval(0.1,0.9)`` a continuum. ``int(interval(1,5))`` has whole numbers, and
    ``tag(log,interval(1e-4,1e-2))`` is drawn on a logarithmic scale.

    Raises:
        ValueError: If Hydra cannot read an override, a range is empty, or nothing is searched.
    """
    shared: list[str] = []
    space: dict[str, BaseDistribution] = {}
    for override in parse_overrides(overrides):
        if override.is_sweep_override():
            key = override.get_key_element()
            try:
                space[key] = _distribution(override)
            except ValueError as error:
                raise ValueError(f"{override.input_line} cannot be searched: {error}") from error
        else:
            shared.append(str(override.input_line))
    if not space:
        raise ValueError(
            "a search needs at least one key with several values, such as "
            "tuning.steps_first=range(24,97,24), got none"
        )
    return shared, space


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    if isinstance(value, IntervalSweep):
        return _interval(value)
    if isinstance(value, RangeSweep):
        return _range(cast("list[int | float]", list(override.sweep_iterator())), value)
    return CategoricalDistribution(tuple(override.sweep_string_iterator()))


def _interval(value: IntervalSweep) -> BaseDistribution:
    low, high, is_log = value.start, value.end, "log" in value.tags
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=is_log)
    return FloatDistribution(cast(float, low), cast(float, high), log=is_log)


def _range(values: Sequence[int | float], value: RangeSweep) -> BaseDistribution:
    if not values:
        raise ValueError("the range has no number")
    low, high, step = min(values), max(values), abs(value.step)
    if all(isinstance(one, int) for one in values):
        return IntDistribution(int(low), int(high), step=int(step))
    return FloatDistribution(low, high, step=step)


def format_point(values: Mapping[str, object]) -> list[str]:
    """Returns the overrides of a point of a space, by the names of their keys."""
    return [f"{key}={values[key]}" for key in sorted(values)]


def list_corners(space: Space) -> Iterator[Mapping[str, object]]:
    """Yields the first value of every key, then each other end or category, one key at a time."""
    ends = {key: _ends(distribution) for key, distribution in space.items()}
    first = {key: values[0] for key, values in ends.items()}
    yield first
    for key, values in ends.items():
        for value in values[1:]:
            yield {**first, key: value}


def _ends(distribution: BaseDistribution) -> Sequence[object]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution | FloatDistribution):
        return (distribution.low, distribution.high)
    raise TypeError(f"no such distribution is made here: {distribution}")
