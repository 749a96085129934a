"""Intake: how much of a long stream a buffer still takes in, tenth by tenth.

`python -m simulations.assets.buffer_intake study=selection fleet.devices=4` replays the first day
of every world and arm, one exchange after another, and prints the share that each selection took in
the moment it came. Rows hold what was left of a night's arrivals at its end (`accepted`), which is
less.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from clients.night.order import NightOrder
from clients.night.selecting import keyed_numbers, read_arrivals, read_days
from clients.policy import DevicePolicy
from clients.selection.buffer import Item, Reading
from clients.selection.rules import Priority, Selection
from clients.state.state import DeviceState
from clients.work.facts import Facts
from fleettune.backbone.causal_lm import read_shapes, resolve_folder
from fleettune.cohort.execute import execute
from fleettune.jobs.jobs import Compute
from fleettune.releases.manifest import Manifest
from simulations.engines.environment import quieten
from simulations.experiment.build import Experiment
from simulations.launch import check_all

PARTS = 10


def taken_in(
    selection: Selection,
    stream: Sequence[Reading],
    quota_bytes: int,
    priority: Priority,
    parts: int = PARTS,
) -> NDArray[np.float64]:
    """Returns the share of exchanges that were held right after they came, ``(parts,)``.

    Args:
        selection: The rule; it starts with nothing.
        stream: What arrives, in time order, at least one exchange per part.
        quota_bytes: Bytes of the buffer.
        priority: The rule's keyed numbers.
        parts: Into how many pieces of the stream the shares are cut.

    Raises:
        ValueError: If the stream has fewer exchanges than parts.
    """
    if len(stream) < parts:
        raise ValueError(f"a stream must have at least {parts} exchanges, got {len(stream)}")
    held: tuple[Item, ...] = ()
    taken = np.zeros(len(stream))
    for place, reading in enumerate(stream):
        held = selection.keep(held, [reading], quota_bytes, priority)
        taken[place] = any(item.order == reading.order for item in held)
    return np.array([part.mean() for part in np.array_split(taken, parts)])


def replayed(experiment: Experiment) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yields every arm that selects as no earlier one does, with its mean shares over devices."""
    seen: list[tuple[Selection, int]] = []
    for name, policy in experiment.arms.items():
        key = (policy.selection, policy.quota.buffer_bytes)
        if key not in seen:
            seen.append(key)
            devices = range(experiment.fleet_settings.devices)
            yield name, np.mean([_of_device(experiment, policy, one) for one in devices], axis=0)


def _of_device(experiment: Experiment, policy: DevicePolicy, device: int) -> NDArray[np.float64]:
    fleet, model = experiment.fleet, experiment.model
    folder = resolve_folder(model.path)
    release = Manifest(
        version=0,
        name=model.name,
        path=str(folder),
        digest="",
        size_bytes=0,
        shapes=read_shapes(folder),
        template=model.template,
        max_tokens=model.max_tokens,
    )
    facts = Facts(device=device, user=device, seed=fleet.seed, profile=fleet.profile(device))
    order = NightOrder(
        facts=facts,
        round=0,
        release=release,
        policy=policy,
        population=fleet.data.open(),
        compute=Compute(run=lambda job: execute([job])[0]),
    )
    readings = read_arrivals(order, read_days(order, DeviceState()))
    quota = policy.quota.buffer_bytes
    return taken_in(policy.selection, readings, quota, keyed_numbers(facts))


def intake_table(world: str, shares: Sequence[tuple[str, NDArray[np.float64]]]) -> Table:
    """Returns the shares as a table, one row per arm."""
    table = Table(title=f"taken in as it came, {world}, % of every tenth of the stream")
    for column in ("arm", *(str(part + 1) for part in range(PARTS))):
        table.add_column(column)
    for name, values in shares:
        table.add_row(name, *(f"{100 * value:.1f}" for value in values))
    return table


def main(overrides: Sequence[str]) -> int:
    """Prints one table per world, of its first seed; returns the exit code."""
    quieten()
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 150)
    try:
        experiments = check_all(list(overrides), sweep=False)
    except ValueError as error:
        Console(stderr=True).print(f"error: {error}", soft_wrap=True, highlight=False)
        return 2
    told: set[str] = set()
    for experiment in experiments:
        if experiment.study.world not in told:
            told.add(experiment.study.world)
            console.print(intake_table(experiment.study.world, list(replayed(experiment))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
