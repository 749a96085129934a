"""Every pair of options of a policy lives two nights; quotas, budgets and ledgers hold in each.

A covering array, made anew from the files of `conf/`, holds every pair of options in some arm, so a
new option is tried with all others as soon as its file is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import polars as pl
import pytest
from omegaconf import DictConfig, OmegaConf

from clients.adaptation.decision import Action
from clients.device import run_round
from clients.night.order import NightOrder
from clients.state.kept_out import training_exchanges
from clients.state.state import DeviceState
from clients.work.facts import Facts
from fleettune.adapters.patch import Patch, to_arrays
from fleettune.cohort.suspension import current_compute, run_cohort
from fleettune.cost.energy import central_values
from fleettune.deltas.frames import ExpectedDelta, payload_bytes, read_frame
from fleettune.messages.flower_records import STATISTICS_BYTES
from fleettune.messages.report import Report
from simulations.experiment.arms import read_choices
from simulations.experiment.build import Experiment, build
from simulations.experiment.lexicons import register_resolver
from simulations.results.device_means import STAGES
from simulations.results.recorder import SCHEMA, WORK_SCHEMA, make_row
from simulations.uncertainty.priced_rows import read_nights
from simulations.uncertainty.repricing import reprice
from strategies.releases.publisher import Publisher
from strategies.releases.training import Vendor

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("adaptation", "selection", "placement", "synthesis", "codec")
OPTIONS = {group: tuple(sorted(f.stem for f in (CONF / group).glob("*.yaml"))) for group in GROUPS}
DEVICES, NIGHTS = 2, 2
BUFFER_BYTES, TOTAL_BYTES = 900, 600_000
"""Less than what users say, and less than a patch at every site with what a codec leaves out."""
RELEASE = (
    "{name: mild, kind: full, steps: 4, learning_rate: 3.0e-3, batch: 2, window: 16, "
    "conversations: 50}"
)
TINY = (
    *("data=synthetic_v1", "model=pocket_v1", "data.exchanges_per_day=2", "data.history_days=3"),
    *(f"fleet.devices={DEVICES}", f"rounds={NIGHTS}", "release.every=1"),
    *(f"release.plans=[{RELEASE}]", "tuning.steps=2", "tuning.batch=2", "cost.model=own"),
    *(f"storage.buffer_bytes={BUFFER_BYTES}", f"storage.total_bytes={TOTAL_BYTES}"),
)
NEEDS_LABELS = ("user_prior",)
"""Rules of adaptation that the world of free text refuses."""
_LABELLED = ("data=parquet", "data.min_exchanges=4", "data.history_days=2")
_TRAINS = "placement must not train before it places"
REFUSED: Mapping[tuple[str, ...], str] = {
    # they answer without the model, one with a label, the others with a stored text
    ("adaptation=user_prior",): "needs answers that are labels; these are free text",
    ("adaptation=copy_nearest", *_LABELLED): "needs answers that are free text; these are labels",
    ("adaptation=copy_edit", *_LABELLED): "needs answers that are free text; these are labels",
    # a tune has one start: an entry of the catalogue or what the placement trained
    ("placement=lora_drop", "start=nearest", "catalogue=styles"): _TRAINS,
    ("placement=gradcut_released", "start=nearest", "catalogue=styles"): _TRAINS,
    # the words of a built-in world are known to one of the built-in models only
    ("data=synthetic",): "add model=pocket$",
}
"""What cannot be combined, and why."""

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """A night of one device of one arm, with what it left behind."""

    arm: str
    order: NightOrder
    state: DeviceState
    report: Report


def cover(options: Mapping[str, Sequence[str]]) -> list[Row]:
    """Returns rows that hold every pair of options of two groups.

    Greedy: a row starts from the first pair that is missing, and each further group takes the
    option that is in most missing pairs with what the row has.
    """
    missing = dict.fromkeys(pairs_of(options))
    rows: list[Row] = []
    while missing:
        row = dict(next(iter(missing)))
        for group, names in options.items():
            if group not in row:

                def gain(name: str, row: Row = row, group: str = group) -> int:
                    return sum(pair((group, name), one) in missing for one in row.items())

                row[group] = max(names, key=gain)
        for one in combinations(row.items(), 2):
            missing.pop(pair(*one), None)
        rows.append({group: row[group] for group in options})
    return rows


def pair(one: tuple[str, str], other: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((one, other)))


def pairs_of(options: Mapping[str, Sequence[str]]) -> list[tuple[tuple[str, str], ...]]:
    return [
        pair((first, one), (second, other))
        for first, second in combinations(options, 2)
        for one, other in product(options[first], options[second])
    ]


def composed(*overrides: str) -> DictConfig:
    register_resolver()
    with hydra.initialize_config_module("conf", version_base="1.3"):
        return hydra.compose("config", overrides=[*TINY, *overrides])


def built(rows: Sequence[Row], *overrides: str) -> Experiment:
    """The experiment with an arm for every row."""
    cfg = composed(*overrides)
    files = {
        (group, name): OmegaConf.load(CONF / group / f"{name}.yaml")
        for group in GROUPS
        for name in OPTIONS[group]
    }
    arms = {"+".join(row.values()): {key: files[key, row[key]] for key in row} for row in rows}
    OmegaConf.update(cfg, "arms", arms, merge=False)
    return build(cfg)


def live_night(order: NightOrder, state: DeviceState) -> tuple[DeviceState, Report]:
    # the processor of a cohort is known only to those who are in it
    return run_round(replace(order, compute=current_compute()), state, observed=True)


def live(experiment: Experiment, store: Path) -> list[Lived]:
    """All arms and devices, night by night; equal computations run once."""
    population = experiment.fleet.data.open()
    publisher = Publisher(
        source=experiment.plan().source,
        schedule=experiment.schedule,
        vendor=Vendor(store=store, population=population, data="world", seed=0),
    )
    fleet, lived = experiment.fleet, list[Lived]()
    states = {key: DeviceState() for key in product(experiment.arms, range(DEVICES))}
    for night in range(NIGHTS):
        release = publisher.newest(night)
        orders = {
            (arm, device): NightOrder(
                facts=Facts(
                    device=device,
                    user=device,
                    seed=fleet.seed,
                    profile=fleet.profile(device),
                    priced=fleet.priced,
                    radio=fleet.radio,
                ),
                round=night,
                release=release,
                policy=experiment.arms[arm],
                population=population,
                compute=current_compute(),
            )
            for arm, device in states
        }
        calls = [partial(live_night, order, states[key]) for key, order in orders.items()]
        found = dict(zip(states, run_cohort(calls), strict=True))
        states = {key: state for key, (state, _) in found.items()}
        lived += [
            Lived(arm=key[0], order=orders[key], state=state, report=report)
            for key, (state, report) in found.items()
        ]
    return lived


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> list[Lived]:
    """All nights of two worlds: free text, and labels for the rules that need them."""
    folder, rule = tmp_path_factory.mktemp("pairs"), "adaptation"
    fitting = tuple(name for name in OPTIONS[rule] if name not in NEEDS_LABELS)
    own = (*_LABELLED, f"data.path={journals(folder)}")
    worlds = (
        built(cover(OPTIONS | {rule: fitting}), "reference.name=free_text"),
        built(cover(OPTIONS | {rule: NEEDS_LABELS}), "reference.name=labels", *own),
    )
    return [one for world in worlds for one in live(world, folder)]


def journals(folder: Path) -> Path:
    """A table of users who name their mood in one of two words."""
    rows = [
        {"user_id": f"u{user}", "order": order, "question": f"day {order} of {user}?"}
        | {"response": ("good", "bad")[mood], "mood": mood}
        for user in range(8)
        for order, mood in enumerate((user + order) % 2 for order in range(12))
    ]
    pl.DataFrame(rows).write_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def test_the_arms_hold_every_pair_of_options() -> None:
    # 569 of them in fewer than a fourth of as many arms; no array can do with fewer than the
    # pairs of its two longest groups
    rows = cover(OPTIONS)
    held = {pair(*one) for row in rows for one in combinations(row.items(), 2)}
    assert held == set(pairs_of(OPTIONS))
    longest = sorted(map(len, OPTIONS.values()))[-2:]
    assert math.prod(longest) <= len(rows) <= 1.15 * math.prod(longest)
    assert rows == cover(OPTIONS)


def test_every_night_is_within_its_quotas(lived: list[Lived]) -> None:
    for one in lived:
        quota, seen = one.order.policy.quota, one.report.statistics
        assert seen.stored_bytes == one.state.stored_bytes, one.arm
        assert seen.buffer_bytes == one.state.buffer_bytes <= quota.buffer_bytes, one.arm
        assert seen.stored_bytes + seen.cache_bytes <= quota.total_bytes, one.arm
    # both bind somewhere, or this would say little
    assert max(one.state.buffer_bytes for one in lived) > 0.9 * BUFFER_BYTES
    assert max(one.state.stored_bytes for one in lived) > 0.9 * TOTAL_BYTES


def test_joules_add_up_and_are_those_of_the_work(lived: list[Lived]) -> None:
    made = [
        make_row(one.arm, one.report.statistics, one.report.observation, one.report.workload)
        for one in lived
    ]
    rows = pl.DataFrame([{key: row[key] for key in SCHEMA} for row in made], schema=SCHEMA)
    by_stage = rows.select(pl.sum_horizontal(f"energy_j_{stage}" for stage in STAGES)).to_series()
    np.testing.assert_allclose(by_stage, rows["energy_j"], rtol=1e-12)
    work = pl.DataFrame(
        [
            (row["arm"], row["device"], row["round"], *entry)
            for row in made
            for entry in row["work"]
        ],
        schema=WORK_SCHEMA,
        orient="row",
    )
    read = read_nights(rows, work)
    facts = {one.order.facts.profile.name: one.order.facts for one in lived}
    at = [central_values(facts[name].profile, facts[name].radio) for name in read.profiles]
    anew = reprice(read, at, by_device=True).device_j[:, :, 0]
    summed = rows.group_by("arm", "device").agg(pl.col("energy_j").sum()).sort("arm", "device")
    np.testing.assert_allclose(anew.ravel(), summed["energy_j"], rtol=1e-9)


def test_no_tune_is_undone_for_want_of_budget_and_every_number_is_one(lived: list[Lived]) -> None:
    tuned, dear, undone = set[str](), set[str](), set[tuple[str, str]]()
    for one in lived:
        order, seen = one.order, one.report.statistics
        retunes = seen.outcome.decision == Action.RETUNE
        if not training_exchanges(order.facts, order.policy.adaptation, one.state):
            assert not retunes, one.arm
        elif seen.outcome.decision != "infeasible":
            assert seen.outcome.decision != "failed", one.arm
        else:
            # what top_k left out of the last delta stands where a larger patch would have to
            undone.add((seen.outcome.reason, order.policy.codec.name))
        assert (seen.tune_steps > 0) == retunes, one.arm
        told = [*asdict(seen).values(), *asdict(one.report.observation or seen).values()]
        assert all(math.isfinite(number) for number in told if isinstance(number, int | float))
        for patch in (one.state.patch, one.state.residual, one.report.delta):
            assert patch is None or is_finite(patch), one.arm
        placement = type(order.policy.placement).__name__
        tuned |= {placement} if retunes else set()
        dear |= {placement} if seen.over_budget else set()
    kinds = {type(one.order.policy.placement).__name__ for one in lived}
    assert tuned == kinds
    assert undone <= {("patch_over_quota", "top_k")}
    assert dear == {"GradCut", "RandomSameProfile"}


def is_finite(patch: Patch) -> bool:
    return all(np.isfinite(array).all() for array in to_arrays(patch).values())


def test_what_is_sent_is_as_long_as_its_codec_says_and_is_read(lived: list[Lived]) -> None:
    for one in lived:
        release, frame = one.order.release, one.report.frame
        up_bytes = one.report.statistics.ledger.total().up_bytes
        assert (frame is None) == (one.report.statistics.tune_steps == 0), one.arm
        if frame is None:
            assert up_bytes == STATISTICS_BYTES
            continue
        expected = ExpectedDelta(
            release=release.version, shapes=release.shapes, limit_bytes=len(frame)
        )
        delta = read_frame(frame, expected)
        assert up_bytes == payload_bytes(frame) + STATISTICS_BYTES
        arrays = [a for name, a in to_arrays(delta).items() if not name.endswith("/alpha")]
        assert payload_bytes(frame) == sent_bytes(one.order.policy.codec.name, arrays), one.arm


def sent_bytes(codec: str, arrays: Sequence[Any]) -> int:
    """Bytes of a delta's entries by hand."""
    entries = sum(array.size for array in arrays)
    if codec == "int8":
        # a byte per entry, four per component of a pair or per vector
        return entries + 4 * sum(min(a.shape) if a.ndim == 2 else 1 for a in arrays)
    if codec == "top_k":
        # a tenth in half precision, and a bit for every entry
        return 2 * round(0.1 * entries) + -(-entries // 8)
    return {"fp32": 4, "fp16": 2}[codec] * entries


@pytest.mark.parametrize(("option", "reason"), REFUSED.items())
def test_options_that_do_not_fit_are_refused_in_one_sentence(
    option: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    table = [f"data.path={journals(tmp_path)}"] if "data=parquet" in option else []
    with pytest.raises(ValueError, match=reason) as caught:
        build(composed(*option, *table), read_choices(option))
    assert "\n" not in str(caught.value)
