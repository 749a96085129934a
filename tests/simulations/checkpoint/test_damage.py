"""A checkpoint whose bits changed is refused in one sentence, or nothing of it is another."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from simulations.checkpoint.store import Store, checksum, to_blob
from simulations.faults import explain_fault
from tests.simulations.flipped_bits import flip_bits, is_told, read_all

HOLDERS = [(arm, device) for arm in ("reuse", "retune") for device in range(4)]


def state(key: int) -> RecordDict:
    """Some kilobytes of records, as a device with a patch and a buffer keeps them."""
    rng = np.random.default_rng(key)
    patch = {f"{layer}.q": Array(rng.normal(size=(8, 64)).astype("f4")) for layer in range(4)}
    return RecordDict({"patch": ArrayRecord(patch), "buffer": ConfigRecord({"said": "é" * key})})


def live(store: Store) -> None:
    night = store.last_round + 1
    for number, (arm, device) in enumerate(HOLDERS):
        store.save({(arm, device): state(10 * night + number)})
        store.add_row({"arm": arm, "device": device, "round": night, "nll": number / 7})
    store.commit_round(night, {"sums": [night / 3] * 40})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of four rounds that is folded into one file, as a closed one is."""
    file = tmp_path_factory.mktemp("whole") / "state.sqlite"
    with Store(file) as store:
        for _ in range(4):
            live(store)
    return file


@pytest.mark.parametrize("span", [10**9, 4096, 40960])
def test_flipped_bits_are_told_in_one_sentence_or_change_nothing(
    span: int, whole: Path, tmp_path: Path
) -> None:
    # everywhere; header and schema; pages of rows and keys
    outcomes = flip_bits(whole, HOLDERS, span, range(100), tmp_path)
    assert list(outcomes.values()).count(None) > 50
    other = tmp_path / "other.sqlite"
    other.write_bytes(whole.read_bytes())
    with Store(other) as store:
        live(store)
    for file in filter(None, outcomes.values()):
        try:
            with Store(file) as store:
                live(store)
        except ValueError as error:  # the header called it read-only
            said = str(error)
        else:
            said = ""
        assert is_told(said, file) or read_all(file, HOLDERS) == read_all(other, HOLDERS)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            "UPDATE device_state SET content = (SELECT content FROM device_state "
            "WHERE device = 1 AND round = 3) WHERE device = 0 AND round = 3",
            "the device_state ('reuse', 0, 3) is not what was written",
        ),
        (  # a content with its own checksum, moved to another device
            "UPDATE device_state SET device = 9 WHERE device = 0",
            "the device_state ('reuse', 9, 2) is not what was written",
        ),
        (
            "UPDATE rows SET arm = 'other' WHERE device = 3 AND round = 1 AND arm = 'reuse'",
            "the rows ('other', 3, 1) is not what was written",
        ),
        ("DELETE FROM device_state WHERE device = 2", "states and rows are not those of round 3"),
        ("DELETE FROM server_state WHERE round = 3", "states and rows are not those of round 2"),
        ("DELETE FROM server_state", "states and rows are not those of round -1"),
        ("UPDATE server_state SET host_seconds = 1", "the server state (3, "),
        ("UPDATE server_state SET content = x'7b7d'", "the server state (3, "),
        ("DROP TABLE rows", "no such table: rows"),
    ],
)
def test_what_was_moved_changed_or_taken_out_is_named(
    damage: str, said: str, whole: Path, tmp_path: Path
) -> None:
    file = tmp_path / "state.sqlite"
    file.write_bytes(whole.read_bytes())
    with sqlite3.connect(file) as db:
        db.execute(damage)
    db.close()
    with pytest.raises(ValueError, match="is damaged") as caught:
        Store(file)
    assert said in str(caught.value)


def test_damage_that_comes_while_a_run_goes_on_is_told_when_it_is_read(
    whole: Path, tmp_path: Path
) -> None:
    file = tmp_path / "state.sqlite"
    file.write_bytes(whole.read_bytes())
    said = to_blob(state(30))[200:264]
    place = file.read_bytes().index(said)
    with Store(file) as store:
        with file.open("r+b") as raw:  # beneath SQLite, as a bad disk does it
            raw.seek(place)
            raw.write(bytes(64))
        # pages that SQLite remembers are the old ones; a new look reads the disk
        store._db.execute("PRAGMA shrink_memory")
        with pytest.raises(ValueError, match=r"the device_state \('reuse', 0, 3\) is not what"):
            store.load([HOLDERS[0]])


def test_a_checksum_is_of_the_key_as_well() -> None:
    assert checksum(b"123456789") == checksum(b"123456789")
    keys = [("a", 1, 2), ("a", 2, 1), ("b", 1, 2), ("a", 1, "2"), ()]
    assert len({checksum(b"123456789", *key) for key in keys}) == len(keys)


def test_a_full_disk_is_no_damage(whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite"
    file.write_bytes(whole.read_bytes())
    with Store(file) as store:
        store._db.execute("PRAGMA max_page_count = 1")  # not one page more than there are now
        with pytest.raises(sqlite3.OperationalError, match="full") as caught:
            store.save({("new", device): state(device) for device in range(9)})
    assert "free or correct that place" in str(explain_fault(caught.value, None))
    assert read_all(file, HOLDERS) == read_all(whole, HOLDERS)
