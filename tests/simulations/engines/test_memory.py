"""Memory: a run of many rounds or many devices takes that of one cohort."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from fleettune.adapters.patch import Factors, Patch
from fleettune.cost.ledger import Ledger
from fleettune.messages.flower_records import encode_report
from fleettune.messages.report import Outcome, Report, Statistics
from fleettune.shapes import Site
from simulations.checkpoint.store import Store
from simulations.engines.cohort_grid import CohortGrid, Registry
from simulations.results.recorder import Recorder
from strategies.rounds.sums import sum_replies

STATM = Path("/proc/self/statm")
KEPT = np.zeros(25_000, np.float32)  # 100 kB
FACTOR = np.ones((1, 25_000), np.float32)  # 100 kB as well, and cheap to multiply

pytestmark = pytest.mark.skipif(not STATM.exists(), reason="needs Linux's /proc")


def resident_bytes() -> int:
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def report(device: int, night: int) -> Report:
    outcome = Outcome(
        device=device,
        round=night,
        release=0,
        profile="phone",
        attendance="present",
        decision="retune",
        reason="test",
    )
    statistics = Statistics(
        outcome=outcome,
        ledger=Ledger(),
        night_s=1.0,
        drift=None,
        strength=None,
        buffer_exchanges=0,
        buffer_bytes=0,
        stored_bytes=KEPT.nbytes,
        tune_steps=1,
        train_tokens=1,
        cache_bytes=0,
    )
    factors = Factors(a=FACTOR + device, b=np.ones((1, 1), np.float32))
    patch = Patch(release=0, alpha=1.0, factors={Site(0, "q"): factors})
    return Report(statistics=statistics, delta=patch, observation=None)


def app() -> ClientApp:
    made = ClientApp()

    @made.train()
    def train(message: Message, context: Context) -> Message:  # pyright: ignore[reportUnusedFunction] - registered
        night = int(str(message.content.config_records["request"]["round"]))
        device = int(context.node_config["partition-id"])
        if night:
            kept = context.state.array_records["kept"]["last"].numpy()
            assert (kept == device * 1000 + night - 1).all()
        context.state["kept"] = ArrayRecord({"last": Array(KEPT + device * 1000 + night)})
        return Message(encode_report(report(device, night)), reply_to=message)

    return made


def live(store: Store, devices: int, nights: int) -> Iterator[int]:
    """Yields the resident bytes after every night of a fleet that keeps 100 kB per device."""
    grid = CohortGrid(
        client=app(),
        registry=Registry(devices=devices, fleet=""),
        cohort_size=10,
        observer=Recorder(store),
        states=store,
        rounds=store,
    )
    for night in range(nights):
        content = RecordDict({"request": ConfigRecord({"round": night})})
        messages = (
            Message(content, node, MessageType.TRAIN, group_id="a") for node in grid.get_node_ids()
        )
        sums = sum_replies(["a"], grid.send_and_receive(messages))
        assert sums["a"].devices == devices
        grid.commit_round(night, {"night": night})
        yield resident_bytes()


def test_memory_is_flat_over_fifty_rounds_of_fifty_devices(tmp_path: Path) -> None:
    # 2500 device nights of 100 kB state and 100 kB delta: 500 MB if anything stayed
    with Store(tmp_path / "state.sqlite") as store:
        resident = list(live(store, devices=50, nights=50))
    assert resident[-1] / resident[0] <= 1.1


def test_a_round_of_a_thousand_devices_takes_the_memory_of_a_cohort(tmp_path: Path) -> None:
    with Store(tmp_path / "state.sqlite") as store:
        (before,) = live(store, devices=10, nights=1)
    with Store(tmp_path / "other.sqlite") as store:
        (after,) = live(store, devices=1000, nights=1)
    # states and deltas of all devices would be 200 MB
    assert after - before < 40e6
