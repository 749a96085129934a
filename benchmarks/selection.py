"""Selection: embeddings in cohort passes against loops, and what scoring adds to a night.

    python benchmarks/selection.py [--quick] [figure ...]

``selection_batching`` is the CPU time per device of a loop that embeds and scores every device's
exchanges one after the other as they arrive, over that of cohort passes; its detail also holds the
loop that takes each device's exchanges together. ``scoring_share`` is the share of a night's host
time that scoring and replacement take, the embedding passes left out. Pocket model, one process,
one thread; quality selection under the default quota, as published and, for ``_balanced``, as
recommended.
"""

from __future__ import annotations

from simulations.engines.environment import set_environment

set_environment()

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fleet import COHORT, NightFleet

import clients.device
from clients.adaptation.rules import AlwaysRetune, NeverPersonalise
from clients.night.order import NightOrder
from clients.night.selecting import Arrivals, read_arrivals, read_days, select
from clients.placement.rules import TopLayers
from clients.policy import DevicePolicy, Quota
from clients.selection.quality import QualityReplace
from clients.state.state import DeviceState
from clients.synthesis.rules import NoSynthesis
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.backbone.causal_lm import POCKET_FOLDER, read_shapes
from fleettune.cohort.execute import execute
from fleettune.cohort.suspension import current_compute, run_cohort
from fleettune.cost.hardware import load_hardware
from fleettune.data.personas import SyntheticData
from fleettune.jobs.jobs import Compute
from fleettune.records import to_record
from fleettune.releases.manifest import Manifest
from measure import Figures, emit, rounded, run_figures
from simulations.experiment.device_fleet import HARDWARE
from simulations.experiment.lexicons import find_lexicons

EXCHANGES = 100
MANIFEST = Manifest(
    version=0,
    name="pocket",
    path=str(POCKET_FOLDER),
    digest="",
    size_bytes=0,
    shapes=read_shapes(POCKET_FOLDER),
    template="pocket",
    max_tokens=64,
)
POLICY = DevicePolicy(
    selection=QualityReplace(lexicon=find_lexicons("everyday")),
    synthesis=NoSynthesis(),
    adaptation=NeverPersonalise(),
    placement=TopLayers(layers=4, rank=8, alpha=16.0),
    tuning=Tuning(steps=36, batch=4, learning_rate=5e-3, clip=1.0),
    quota=Quota(buffer_bytes=6144, total_bytes=4_000_000),
)


FORMS = {
    "scoring_share": POLICY,
    # the form that is recommended, conf/selection/balanced_quality.yaml
    "scoring_share_balanced": replace(
        POLICY,
        selection=QualityReplace(
            lexicon=find_lexicons("everyday"),
            eoe="standardised",
            idd="nearest",
            rule="balanced",
            weights=(0.1, 0.1, 1.0),
            vectors="again",
        ),
    ),
}


def fleet(devices: int, exchanges: int) -> list[tuple[NightOrder, Arrivals]]:
    """Returns devices with what arrived on each, as tokens already."""
    population = SyntheticData(exchanges_per_day=exchanges, history_days=1).open()
    profile = next(iter(load_hardware(HARDWARE).values()))
    found: list[tuple[NightOrder, Arrivals]] = []
    for device in range(devices):
        order = NightOrder(
            facts=Facts(device=device, user=device, seed=0, profile=profile),
            round=0,
            release=MANIFEST,
            policy=POLICY,
            population=population,
            compute=Compute(run=lambda job: execute([job])[0]),
        )
        found.append((order, read_days(order, DeviceState())))
    return found


def read(order: NightOrder, arrived: Arrivals) -> DeviceState:
    """Returns a device's state after it embedded and selected what arrived."""
    return select(order, DeviceState(), arrived, read_arrivals(order, arrived))[0]


def together(known: Sequence[tuple[NightOrder, Arrivals]]) -> list[DeviceState]:
    """Returns all states, the embeddings in cohort passes."""
    found: list[DeviceState] = []
    for start in range(0, len(known), COHORT):
        calls = [
            lambda pair=pair: read(replace(pair[0], compute=current_compute()), pair[1])
            for pair in known[start : start + COHORT]
        ]
        found += run_cohort(calls, execute)
    return found


def device_by_device(known: Sequence[tuple[NightOrder, Arrivals]]) -> list[DeviceState]:
    """Returns all states, every device's exchanges in passes of its own."""
    return [read(order, arrived) for order, arrived in known]


def one_by_one(known: Sequence[tuple[NightOrder, Arrivals]]) -> list[DeviceState]:
    """Returns all states, every exchange embedded and scored as it arrives."""
    found: list[DeviceState] = []
    for order, arrived in known:
        state = DeviceState()
        for exchange, example in zip(arrived.exchanges, arrived.examples, strict=True):
            single = replace(arrived, exchanges=(exchange,), examples=(example,))
            state, _ = select(order, state, single, read_arrivals(order, single))
        found.append(state)
    return found


def measure_batching(devices: int, looped: int) -> None:
    """Prints how much less CPU time a device takes in cohort passes than in a loop."""
    detail: dict[str, Any] = {"devices": devices, "exchanges": EXCHANGES, "looped": looped}
    ways = {"together": together, "device_by_device": device_by_device, "one_by_one": one_by_one}
    for exchanges in (EXCHANGES, 8):
        known = fleet(devices, exchanges)
        together(known[:2])
        states: dict[str, list[DeviceState]] = {}
        spent: dict[str, float] = {}
        for name, way in ways.items():
            part = known if name == "together" else known[:looped]
            before = time.process_time()
            states[name] = way(part)
            spent[name] = (time.process_time() - before) / len(part)
        orders = {
            name: [[item.order for item in state.items] for state in found[:looped]]
            for name, found in states.items()
        }
        detail[f"of_{exchanges}"] = {
            "cpu_ms_per_device": {name: round(1e3 * value, 2) for name, value in spent.items()},
            "over_device_by_device": round(spent["device_by_device"] / spent["together"], 2),
            "over_one_by_one": round(spent["one_by_one"] / spent["together"], 2),
            # entries of embeddings differ by rounding, so a tie may fall otherwise
            "same_buffers": sum(
                one == other
                for one, other in zip(orders["together"], orders["one_by_one"], strict=True)
            )
            / looped,
        }
    emit("selection_batching", detail[f"of_{EXCHANGES}"]["over_one_by_one"], detail)


def measure_share(name: str, quick: bool) -> None:
    """Prints the share of nights' host time that scoring and replacement take."""
    devices = 8 if quick else 64
    spent: list[float] = []
    original = clients.device.select

    def timed(*given: Any) -> Any:  # noqa: ANN401 - whatever `select` takes
        before = time.perf_counter()
        found = original(*given)
        spent.append(time.perf_counter() - before)
        return found

    shares, nights = [], []
    with tempfile.TemporaryDirectory() as scratch:
        night_fleet = NightFleet(Path(scratch), 1_000_000, steps=36)
        night_fleet.policy = to_record(replace(FORMS[name], adaptation=AlwaysRetune()))
        night_fleet.night(0, range(900_000, 900_002))
        clients.device.select = timed
        try:
            for number in range(2):
                spent.clear()
                before = time.perf_counter()
                night_fleet.night(number, range(devices))
                nights.append(time.perf_counter() - before)
                shares.append(sum(spent) / nights[-1])
        finally:
            clients.device.select = original
    detail = {
        "at_most": 0.05,
        "devices": devices,
        "steps_batch_layers": [36, 4, 4],
        "night_s": rounded(nights),
        "share_by_night": [round(share, 4) for share in shares],
    }
    emit(name, round(max(shares), 4), detail)


FIGURES: Figures = {
    "selection_batching": lambda quick: measure_batching(*((32, 4) if quick else (1000, 20))),
    **{name: partial(measure_share, name) for name in FORMS},
}

if __name__ == "__main__":
    run_figures("Selection in cohorts.", FIGURES)
