"""Says before a run what will happen, how long it takes about, and how much it writes.

Time is arithmetic over the rate of this machine, which is measured at the start: tokens that are
trained and looked at, times the model's weights. Nothing of it enters a result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clients.adaptation import (
    AlwaysReuse,
    CopyNearest,
    FleetOnly,
    NeverPersonalise,
    Retrieve,
    UserPrior,
    traits_of,
)
from clients.adaptation.decision import FRESH
from clients.policy import DevicePolicy
from clients.tuning.schedule import Tuning
from fleettune.backbone.causal_lm import read_shapes
from fleettune.backbone.processor import CPU
from fleettune.data.tokens import open_encoder
from fleettune.shapes import Shapes
from simulations.engines.progress import describe_seconds
from simulations.experiment.build import Experiment
from strategies.plan import Plan
from strategies.releases.publisher import SourceModel
from strategies.releases.schedule import MERGED, ReleasePlan
from strategies.releases.training import Vendor, find_trained, ship_unchanged

_UNTRAINED = (NeverPersonalise, FleetOnly, Retrieve, UserPrior, CopyNearest)
_PASS = 1536
"""Rows of the product that is timed, as many as the tokens of a pass."""
_TIMED_S = 0.4
_REACHED = 0.45
"""Share of that speed which passes reach: 0.38 to 0.5 in runs of the pocket model."""
_LEAST_SHARE, _WHOLE_SHARE = 0.02, 0.9
_LOOKS = 12
"""Forward passes over a day's exchanges in a night: two looks of the observer and serving."""
_NIGHT_S = 0.03
"""Seconds of bookkeeping in a night of one arm, whatever the model."""
_CONVERSATION_S = 0.003
"""Seconds that making and reading one conversation of a vendor's corpus takes."""
_PEOPLE = 4
"""Devices whose first days say how long an exchange is, and how many come in a day."""
_RAY_S = 10.0
"""Seconds that Ray takes to start."""
_END_S = 3.0
"""Seconds from the last night to the page."""
_PAGE_BYTES = 5e6
_ROW_BYTES = 400
_STATE_BYTES = 30e3
"""What a device keeps beside its patches: texts and records."""
_RANK = 8
_FLOAT = 4
_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is expected of a run.

    Attributes:
        seconds: Of this machine, without releases; None where that cannot be known.
        releases_s: For the releases that are not in the store.
        missing: How many those are.
        left_bytes: What its folder holds at the end.
        passing_bytes: What it holds beside that while the run goes on.
    """

    seconds: float | None
    releases_s: float
    missing: int
    left_bytes: float
    passing_bytes: float


def describe_outlook(experiment: Experiment) -> str:
    """Returns in one line what will happen, how long it takes and how large it is."""
    settings, run = experiment.fleet_settings, experiment.run
    releases = experiment.schedule.version(run.rounds - 1) + 1
    arms = len(experiment.arms)
    found = foresee(experiment)
    counts = (
        *((settings.devices, "device"), (run.rounds, "night")),
        *((releases, "release"), (arms, "arm")),
    )
    what = ", ".join(f"{count:,} {word}{'s' * (count > 1)}" for count, word in counts)
    return (
        f"{what}: {_describe_time(experiment, found)}; "
        f"about {found.left_bytes / _MB:,.0f} MB stay in its folder"
        f" ({found.passing_bytes / _MB:,.0f} MB more while it runs)"
    )


def _describe_time(experiment: Experiment, found: Outlook) -> str:
    if found.seconds is None:
        where = experiment.run.compute.device
        where = f"engine={experiment.engine.name}" if where == CPU else where
        return f"how long it takes is not known beforehand with {where}"
    told = f"about {describe_seconds(found.seconds)} by the speed and load of this machine just now"
    if found.missing:
        more = describe_seconds(found.releases_s)
        told += f", and about {more} for {found.missing} releases that are not in the store"
    return told


def foresee(experiment: Experiment) -> Outlook:
    """Returns what is expected of a run; a rule that may retune is taken to do so every time."""
    plan = experiment.plan()
    folder = Path(plan.source.path)
    shapes, run = read_shapes(folder), experiment.run
    tokens, per_day, size_bytes = _measure_text(experiment, plan.source)
    nights = sum(map(experiment.fleet_settings.count_present, range(run.rounds)))
    releases = [experiment.schedule.plan(v) for v in range(1 + _last(experiment))]
    held = experiment.arms[experiment.reference].quota.buffer_bytes / size_bytes
    steps = count_steps(experiment.arms.values(), len(releases), held)
    flop_per_s, share = _measure_rate(shapes, experiment.engine.threads)
    trained = experiment.fleet_settings.devices * steps * tokens * 4 * shapes.parameters
    looked = nights * len(experiment.arms) * _LOOKS * per_day * tokens * 2 * shapes.parameters
    cores = os.cpu_count() or 1
    shared = min(experiment.engine.workers, cores)
    # with what runs beside us several workers get less of a core than one process does
    slower = 1.0 if share > _WHOLE_SHARE else 1 / share + (shared - 1) / cores
    # a worker imports what this process did
    begin_s = time.process_time() if shared > 1 else 0.0
    begin_s += _RAY_S if experiment.engine.name == "ray" else 0.0
    kept_s = nights * len(experiment.arms) * _NIGHT_S + _END_S
    seconds = begin_s + (trained + looked) / flop_per_s / shared + kept_s
    missing = _find_missing(plan, releases)
    made = sum(6 * one.steps * one.batch * one.window * shapes.parameters for one in missing)
    texts = sum(one.conversations for one in missing)
    return Outlook(
        seconds=slower * seconds if _is_known(experiment) else None,
        releases_s=slower * (made / flop_per_s + _CONVERSATION_S * texts),
        missing=len(missing),
        **_sizes(experiment, shapes, nights),
    )


def _is_known(experiment: Experiment) -> bool:
    engine = experiment.engine
    here = engine.name == "inprocess" or (engine.name == "ray" and engine.address is None)
    return here and experiment.run.compute.device == CPU


def _last(experiment: Experiment) -> int:
    return experiment.schedule.version(experiment.run.rounds - 1)


def count_steps(policies: Iterable[DevicePolicy], releases: int, held: float) -> float:
    """Returns the optimizer steps times exchanges of all arms for one device.

    A first tune that several arms have in common is computed once.

    Args:
        policies: The arms.
        releases: Releases of the run, the initial one included.
        held: Exchanges that a device holds, for a tune that is counted in epochs.
    """
    firsts: set[tuple[str, float]] = set()
    later = 0.0
    for policy in policies:
        if isinstance(policy.adaptation, _UNTRAINED):
            continue
        goes_on = traits_of(policy.adaptation).goes_on_from != FRESH
        tuning = policy.tuning
        parts = (policy.selection, policy.synthesis, policy.placement, policy.start)
        firsts.add((repr(parts), _examples(tuning.first() if goes_on else tuning, held)))
        if not isinstance(policy.adaptation, AlwaysReuse):
            later += (releases - 1) * _examples(tuning.again() if goes_on else tuning, held)
    return later + sum(examples for _, examples in firsts)


def _examples(tuning: Tuning, held: float) -> float:
    if tuning.steps is not None:
        return tuning.steps * tuning.batch
    return (tuning.epochs or 0) * held


def _measure_text(experiment: Experiment, source: SourceModel) -> tuple[float, float, float]:
    """Returns tokens of an exchange with padding, exchanges of a later day, and bytes of one."""
    encoder = open_encoder(Path(source.path), source.template, source.max_tokens)
    population = experiment.fleet.data.open()
    people = range(min(_PEOPLE, experiment.fleet_settings.devices))
    firsts = [one for user in people for one in population.day(user, 0)[:16]]
    later = sum(len(population.day(user, 1)) for user in people) / len(people)
    if not firsts:
        return float(source.max_tokens), later, 1.0
    # a pass is as long as its longest exchange
    tokens = max(len(encoder.example(one).tokens) for one in firsts)
    return float(tokens), later, sum(one.size_bytes for one in firsts) / len(firsts)


def _measure_rate(shapes: Shapes, threads: int) -> tuple[float, float]:
    """Returns what a process computes in a second of its own, and its part of a core, up to 1.

    It is timed on a product of the model's own shape, in FLOP.
    """
    torch.set_num_threads(threads)
    rows, weights = torch.ones(_PASS, shapes.hidden), torch.ones(shapes.hidden, shapes.ffn)
    torch.mm(rows, weights)  # the first one sets things up
    began, own_s, count = time.perf_counter(), time.process_time(), 0
    while (spent_s := time.perf_counter() - began) < _TIMED_S:
        torch.mm(rows, weights)
        count += 1
    # threads that compute together count each for itself
    own_s = max((time.process_time() - own_s) / threads, _LEAST_SHARE * spent_s)
    flop = 2 * _PASS * shapes.hidden * shapes.ffn * count
    return _REACHED * flop / own_s, min(1.0, own_s / spent_s)


def _find_missing(plan: Plan, releases: Sequence[ReleasePlan | None]) -> list[ReleasePlan]:
    """Returns the releases that must be made; from the first of them on all of them."""
    source = Path(plan.source.path)
    encoder = open_encoder(source, plan.source.template, plan.source.max_tokens)
    vendor = Vendor(
        store=Path(plan.store), population=plan.data.open(), data=plan.data_key, seed=plan.seed
    )
    parent = ship_unchanged(source)
    for version, one in enumerate(releases):
        if one is None:
            continue
        found = None
        if one.kind != MERGED:
            found = find_trained(parent, one, vendor, encoder, version)
        if found is None:
            return [left for left in releases[version:] if left is not None]
        parent = found
    return []


def _sizes(experiment: Experiment, shapes: Shapes, nights: int) -> dict[str, float]:
    arms = len(experiment.arms)
    tuned = sum(not isinstance(one.adaptation, _UNTRAINED) for one in experiment.arms.values())
    sides = sum(sum(size) for size in shapes.matrices().values())
    patch = _FLOAT * _RANK * shapes.layers * sides
    devices = experiment.fleet_settings.devices
    kept = min(experiment.run.keep_patches, devices) * tuned * patch
    updates = tuned * _FLOAT * shapes.linear_parameters
    return {
        "left_bytes": _PAGE_BYTES + kept + updates + nights * arms * _ROW_BYTES,
        # the newest state and the one before it
        "passing_bytes": 2 * devices * (tuned * patch + arms * _STATE_BYTES),
    }
