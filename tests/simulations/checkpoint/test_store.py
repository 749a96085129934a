"""The store: what comes back is what was kept, and a round is there whole or not at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from clients.state.state import DeviceState, read_state, write_state
from fleettune.adapters.patch import Factors, Patch
from fleettune.data.exchanges import Exchange
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Shapes, Site
from simulations.checkpoint.store import Store, from_blob, to_blob

FACTORS = Factors(
    a=np.arange(6, dtype=np.float32).reshape(2, 3) / np.float32(7),
    b=np.full((4, 2), -0.1, np.float32),
)
STATE = DeviceState(
    last_day=3,
    held=Manifest(
        version=1,
        name="mild",
        path="/store/mild",
        digest="ab" * 32,
        size_bytes=10,
        shapes=Shapes(hidden=3, layers=1, heads=1, kv_heads=1, head_dim=4, ffn=5, vocab=7),
        template="pocket",
        max_tokens=64,
    ),
    settled=1,
    buffer=(Exchange(day=3, order=2, question="grüezi?", response="\x00 ok", domain="home"),),
    patch=Patch(release=1, alpha=16.0, factors={Site(0, "q"): FACTORS}),
    extra_bytes=7,
)


def counting(nights: int) -> RecordDict:
    return RecordDict({"nights": ConfigRecord({"lived": nights})})


def lived(store: Store, arm: str, device: int) -> object:
    """How many nights the newest state of a device says; None without a state."""
    state = store.load([(arm, device)])[arm, device]
    return state.config_records["nights"]["lived"] if "nights" in state else None


def live(store: Store, round_number: int, devices: range = range(2)) -> None:
    """One round of two arms, not yet committed."""
    for device in devices:
        store.save({(arm, device): counting(round_number + 1) for arm in "ab"})
        for arm in "ab":
            store.add_row(row(arm, device, round_number))


def row(arm: str, device: int, round_number: int) -> dict[str, Any]:
    return {"arm": arm, "device": device, "round": round_number, "nll": 0.1 + device, "mae": None}


def versions(file: Path) -> list[tuple[str, int, int]]:
    with sqlite3.connect(file) as db:
        found = db.execute("SELECT arm, device, round FROM device_state ORDER BY 1, 2, 3")
        kept = found.fetchall()
    db.close()
    return kept


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint" / "state.sqlite"


def test_a_device_state_comes_back_as_it_was() -> None:
    records = RecordDict()
    write_state(records, STATE, "arm")
    back = read_state(from_blob(to_blob(records)), "arm")
    assert (back.last_day, back.settled, back.buffer, back.extra_bytes) == (
        3,
        1,
        STATE.buffer,
        7,
    )
    assert back.patch is not None
    assert STATE.patch is not None
    assert back.patch.digest() == STATE.patch.digest()


def test_all_records_of_flower_come_back_with_names_order_and_types() -> None:
    config = ConfigRecord(
        {"text": "é", "bytes": b"\x00\xff", "yes": True, "many": [b"a", b""], "n": 3, "x": 3.0}
    )
    metrics = MetricRecord({"nan": float("inf"), "list": [0.1, 2.5], "whole": 2})
    half, none = np.array(0.5, np.float16), np.zeros((0, 3), np.int64)
    arrays = ArrayRecord({"z": Array(half), "a": Array(none)})
    kept = RecordDict({"z": arrays, "config": config, "a": metrics, "empty": ArrayRecord({})})
    back = from_blob(to_blob(kept))
    assert list(back) == ["z", "config", "a", "empty"]
    assert dict(back.config_records["config"]) == dict(config)
    assert type(back.config_records["config"]["x"]) is float
    assert back.config_records["config"]["yes"] is True
    assert dict(back.metric_records["a"]) == dict(metrics)
    assert list(back.array_records["z"]) == ["z", "a"]
    for name, array in arrays.items():
        other = back.array_records["z"][name]
        assert (other.dtype, other.shape, other.stype, other.data) == (
            array.dtype,
            array.shape,
            array.stype,
            array.data,
        )


@given(
    st.dictionaries(
        st.text(),
        st.one_of(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.text(),
            st.binary(),
            st.booleans(),
            st.lists(st.floats(allow_nan=False)),
            st.lists(st.binary()),
        ),
    )
)
def test_any_configuration_comes_back(values: dict[str, Any]) -> None:
    kept = RecordDict({"record": ConfigRecord(values)})
    assert dict(from_blob(to_blob(kept)).config_records["record"]) == values


def test_a_blob_of_something_else_is_refused_and_nothing_in_it_is_run() -> None:
    with pytest.raises(ValueError, match="must hold Flower's records"):
        from_blob(b"\x80\x04\x95pickle")


def test_a_device_that_never_kept_anything_has_empty_records(file: Path) -> None:
    with Store(file) as store:
        assert store.last_round == -1
        assert store.server_state() is None
        assert list(store.load([("a", 0)])["a", 0]) == []


def test_what_is_staged_is_seen_by_the_run_itself(file: Path) -> None:
    with Store(file) as store:
        live(store, 0)
        assert lived(store, "a", 1) == 1
        assert len(list(store.rows())) == 4


def test_a_committed_round_is_there_after_reopening(file: Path) -> None:
    with Store(file) as store:
        live(store, 0)
        store.commit_round(0, {"sums": [0.1]})
    with Store(file) as store:
        assert store.last_round == 0
        assert store.server_state() == {"sums": [0.1]}
        assert lived(store, "b", 1) == 1
        # a tenth has no exact double; its shortest text has the same one again
        assert list(store.rows()) == [row(arm, device, 0) for arm in "ab" for device in (0, 1)]


def test_a_round_without_its_commit_was_never_there(file: Path) -> None:
    with Store(file) as store:
        live(store, 0)
        store.commit_round(0, {"round": 0})
        live(store, 1)  # and the driver dies
    with Store(file) as store:
        assert store.last_round == 0
        assert store.server_state() == {"round": 0}
        assert [lived(store, arm, device) for arm in "ab" for device in (0, 1)] == [1] * 4
        assert len(list(store.rows())) == 4
        live(store, 1)  # the same rows can be written again
        store.commit_round(1, {"round": 1})
        assert lived(store, "a", 0) == 2


def test_two_versions_of_a_state_are_kept_and_no_more(file: Path) -> None:
    with Store(file) as store:
        for round_number in range(4):
            live(store, round_number, devices=range(2 if round_number < 2 else 1))
            store.commit_round(round_number, {})
    # device 1 stayed away after round 1: its states of rounds 0 and 1 are its newest two
    assert versions(file) == [
        (arm, device, round_number)
        for arm in "ab"
        for device, rounds in ((0, (2, 3)), (1, (0, 1)))
        for round_number in rounds
    ]


def test_a_cohort_saved_twice_in_a_round_counts_once(file: Path) -> None:
    with Store(file) as store:
        store.save({("a", 0): counting(1)})
        store.save({("a", 0): counting(2)})
        store.commit_round(0, {})
        assert lived(store, "a", 0) == 2
    assert versions(file) == [("a", 0, 0)]


def test_rounds_are_committed_in_order(file: Path) -> None:
    with Store(file) as store:
        store.commit_round(0, {})
        for wrong in (0, 2):
            with pytest.raises(ValueError, match=f"next round must be 1, got {wrong}"):
                store.commit_round(wrong, {})


def test_host_seconds_go_on_where_they_were(file: Path) -> None:
    with Store(file) as store:
        store.commit_round(0, {})
        spent = store.host_seconds
    with Store(file) as store:
        assert store.host_seconds > 0
        store.commit_round(1, {})
        assert store.host_seconds < spent + 60
    with sqlite3.connect(file) as db:
        seconds = [s for (s,) in db.execute("SELECT host_seconds FROM server_state ORDER BY round")]
    db.close()
    assert 0 < seconds[0] < seconds[1]


def test_another_schema_is_refused(file: Path) -> None:
    Store(file).close()
    with sqlite3.connect(file) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    db.close()
    with pytest.raises(ValueError, match=r"state\.sqlite must have schema 3, got 99"):
        Store(file)


def test_a_file_that_is_no_database_is_refused(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database, " * 100)
    with pytest.raises(ValueError, match=r"is damaged \(file is not a database\)"):
        Store(file)


def test_rows_that_somebody_took_out_are_noticed(file: Path) -> None:
    with Store(file) as store:
        live(store, 0)
        store.commit_round(0, {})
    with sqlite3.connect(file) as db:
        db.execute("DELETE FROM rows WHERE arm = 'a'")
    db.close()
    with pytest.raises(ValueError, match="its states and rows are not those of round 0"):
        Store(file)


def test_a_second_driver_of_the_same_run_is_refused(file: Path) -> None:
    with (
        Store(file),
        pytest.raises(ValueError, match="no other process uses: database is locked"),
    ):
        Store(file)
