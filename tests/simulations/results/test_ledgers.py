"""Ledgers hold every joule of the rows once, and say what they do not count."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.cost.energy import central_values, price
from fleettune.cost.hardware import load_hardware
from fleettune.cost.ledger import Stage
from fleettune.cost.radio import WIFI
from fleettune.cost.workload import Amount, Phase, Workload
from simulations.experiment.device_fleet import HARDWARE
from simulations.results.device_means import STAGES
from simulations.results.ledgers import NETWORK_J_PER_MB, arm_ledgers, sum_open_time
from simulations.results.recorder import WORK_SCHEMA
from simulations.results.summary import HostInfo, RunInfo, summarise
from simulations.uncertainty.estimate import Uncertainty, estimate

PROFILES = load_hardware(HARDWARE)
OF = (PROFILES["mid_phone"], PROFILES["pixel_7"], PROFILES["jetson_orin_nano_8gb"])
INFO = RunInfo(
    seed=1,
    devices=3,
    rounds=2,
    releases=1,
    engine="inprocess",
    backbone="pocket",
    data="synthetic",
    quality_metric="exact_match",
    reference="a",
    coefficients={},
    priced_as="llama-3.2-1b",
)
Fleet = Mapping[tuple[str, int, int], Workload]


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Nights of two arms; device d has the d-th profile."""
    stages = [stage for stage in Stage if stage not in (Stage.IDLE, Stage.OBSERVE)]
    keys = [(arm, device, night) for arm in "ab" for device in range(3) for night in range(2)]
    found: dict[tuple[str, int, int], Workload] = {}
    for key in keys:
        work = Workload()
        for stage in draw(st.lists(st.sampled_from(stages), max_size=4, unique=True)):
            amount = Amount(flop=draw(st.floats(0, 1e13)), moved_bytes=draw(st.floats(0, 1e11)))
            work = work.plus(stage, draw(st.sampled_from(Phase)), amount)
        found[key] = work
    return found


def tables(fleet: Fleet) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows priced as devices price them, and their work."""
    rows: list[dict[str, Any]] = []
    work: list[tuple[Any, ...]] = []
    for key, workload in fleet.items():
        ledger = price(workload, central_values(OF[key[1]], WIFI), heat_s=5.0)
        row: dict[str, Any] = dict(zip(("arm", "device", "round"), key, strict=True))
        row |= {"profile": OF[key[1]].name, "attendance": "present", "decision": "none"}
        row["arrived"] = 1
        row |= dict.fromkeys(("nll", "approval", "mae", "rouge1"), None) | {"exact_match": 0.5}
        row |= asdict(ledger.total()) | {"start_s": 100.0 * key[1], "night_s": 50.0}
        rows.append(
            row | {f"energy_j_{stage}": ledger.of(Stage(stage)).energy_j for stage in STAGES}
        )
        work += [
            (*key, stage.value, phase.value, amount.flop, amount.moved_bytes, amount.bursts)
            for stage, phase, amount in workload.entries
        ]
    return pl.DataFrame(rows), pl.DataFrame(work, schema=WORK_SCHEMA, orient="row")


def known(fleet: Fleet) -> tuple[pl.DataFrame, Uncertainty]:
    rows, work = tables(fleet)
    return rows, estimate(rows, work, OF, "a", radio=WIFI, seed=1, draws=20)


@settings(max_examples=6, deadline=None)
@given(fleets())
def test_rows_stages_and_ledgers_hold_the_same_joules(fleet: Fleet) -> None:
    rows, uncertainty = known(fleet)
    host = HostInfo(host_seconds=1.0, peak_rss_mb=1.0)
    for arm, part in summarise(rows, INFO, host, uncertainty)["arms"].items():
        joules, mine = part["energy_j"], rows.filter(pl.col("arm") == arm)
        total = math.fsum(mine["energy_j"].to_list())
        ledgers = {name: one["joules"] for name, one in joules["ledgers"].items()}
        assert joules["total"] == pytest.approx(total, rel=1e-9, abs=1e-12)
        assert math.fsum(joules["by_stage"].values()) == pytest.approx(total, rel=1e-9, abs=1e-12)
        assert ledgers["device_total"] == pytest.approx(total, rel=1e-9, abs=1e-12)
        with_idle = ledgers["device_marginal"] + joules["by_stage"]["idle"]
        assert with_idle == pytest.approx(total, rel=1e-9, abs=1e-12)
        wall = math.fsum(
            joules / OF[device].charger_efficiency.value
            for device, joules in mine.select("device", "energy_j").iter_rows()
        )
        assert ledgers["wall"] == pytest.approx(wall, rel=1e-9, abs=1e-12)


def one_night(**amount: float) -> Fleet:
    work = Workload(entries=((Stage.DOWNLOAD, Phase.RECEIVE, Amount(**amount)),))
    return {("a", 0, 0): work, ("b", 0, 0): work}


def test_the_network_is_bytes_times_joules_per_byte_by_hand() -> None:
    rows, uncertainty = known(one_night(moved_bytes=4e9, bursts=1.0))
    assert arm_ledgers(rows, "a", uncertainty, network=False)["network"].joules is None
    part = rows.filter(pl.col("arm") == "a")
    network = arm_ledgers(part, "a", uncertainty, network=True)["network"]
    assert network.joules == pytest.approx(4000 * 1.3)  # 4,000 MB at 1.3 J/MB
    assert 4000 * NETWORK_J_PER_MB.low <= (network.low or 0) < (network.high or 0)
    assert (network.high or 0) <= 4000 * NETWORK_J_PER_MB.high
    assert network.tiers["E"] == 1.0


def test_what_is_not_counted_says_why() -> None:
    rows, uncertainty = known(one_night(moved_bytes=1e9))
    ledgers = arm_ledgers(rows, "a", uncertainty, network=False)
    assert ledgers["network"].joules is ledgers["network"].low is None
    assert ledgers["network"].note.startswith("not counted: ")


def test_a_server_is_up_from_the_first_start_to_the_last_reply() -> None:
    # Devices start at 0, 100 and 200 s and work for 50 s: 250 s a round at 49 W.
    fleet = {("a", device, night): Workload() for device in range(3) for night in range(2)}
    rows, uncertainty = known(fleet)
    server = arm_ledgers(rows, "a", uncertainty, network=False)["server"]
    assert sum_open_time(rows) == 500.0
    assert server.joules == pytest.approx(500 * 49)
    assert server.low is not None
    assert server.high is not None
    assert 500 * 25 <= server.low < 500 * 49 < server.high <= 500 * 100


def test_every_counted_joule_has_range_and_tiers() -> None:
    rows, uncertainty = known(one_night(moved_bytes=1e9))
    for ledger in arm_ledgers(rows, "a", uncertainty, network=True).values():
        if ledger.joules is not None:
            assert ledger.low is not None
            assert math.fsum(ledger.tiers.values()) == pytest.approx(1.0)
            json.dumps(asdict(ledger), allow_nan=False)
