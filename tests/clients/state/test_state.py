"""A device's state: it survives its records, arms stay apart, other schemas are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.placement.rules import TopLayers
from clients.policy import Quota
from clients.selection.buffer import Note
from clients.state.state import DeviceState, check_quota, read_state, write_state
from fleettune.adapters.patch import Patch, new_patch, to_arrays
from fleettune.data.exchanges import Exchange
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Shapes

SHAPES = Shapes(hidden=8, layers=3, heads=2, kv_heads=1, head_dim=4, ffn=12, vocab=16)


def some_patch() -> Patch:
    placement = TopLayers(layers=2, rank=2, alpha=4.0).on(SHAPES)
    return new_patch(placement, SHAPES, 1, np.random.default_rng(0))


def some_release(version: int) -> Manifest:
    return Manifest(
        version=version,
        name=f"release {version}",
        path=f"/store/{version}",
        digest="ab" * 32,
        size_bytes=10,
        shapes=SHAPES,
        template="pocket",
        max_tokens=64,
    )


TUNED = DeviceState(last_day=0, held=some_release(1), settled=1, patch=some_patch())

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
said = st.lists(st.tuples(texts, texts, st.integers(0, 9), texts), max_size=4)


@settings(derandomize=True, deadline=None)
@given(
    said=said,
    patched=st.booleans(),
    extra=st.integers(0, 99),
    last=st.integers(-1, 9),
    version=st.none() | st.integers(0, 9),
    settled=st.integers(-1, 9),
)
def test_state_survives_its_records(
    said: list[tuple[str, str, int, str]],
    patched: bool,
    extra: int,
    last: int,
    version: int | None,
    settled: int,
) -> None:
    patch = some_patch() if patched else None
    buffer = tuple(
        Exchange(question=question, response=response, day=day, order=order, domain=domain)
        for order, (question, response, day, domain) in enumerate(said)
    )
    state = DeviceState(
        last_day=last,
        held=None if version is None else some_release(version),
        settled=settled,
        buffer=buffer,
        patch=patch,
        extra_bytes=extra,
    )
    records = RecordDict()
    write_state(records, state)
    found = read_state(records)
    assert replace(found, patch=None) == replace(state, patch=None)
    assert found.release == (-1 if version is None else version)
    assert found.stored_bytes == state.stored_bytes
    assert (found.patch is None) == (patch is None)
    if found.patch is not None and patch is not None:
        assert (found.patch.digest(), found.patch.release) == (patch.digest(), patch.release)
        assert to_arrays(found.patch).keys() == to_arrays(patch).keys()


def test_a_device_that_was_cut_short_knows_what_it_holds_and_what_it_settled() -> None:
    # the newer release is there, what to do about it is not yet decided
    state = DeviceState(last_day=4, held=some_release(3), settled=2, patch=some_patch())
    records = RecordDict()
    write_state(records, state)
    found = read_state(records)
    assert (found.release, found.settled, found.held) == (3, 2, some_release(3))


def test_a_patch_stays_that_of_the_release_that_it_was_tuned_on() -> None:
    records = RecordDict()
    write_state(records, replace(TUNED, held=some_release(5), settled=5))
    found = read_state(records)
    assert found.patch is not None
    assert (found.release, found.patch.release) == (5, 1)


def test_a_dropped_patch_leaves_no_record() -> None:
    records = RecordDict()
    write_state(records, TUNED)
    assert len(records.array_records) == 1
    write_state(records, replace(TUNED, patch=None))
    assert not records.array_records
    assert read_state(records).patch is None


def test_arms_that_share_a_nodes_records_keep_their_states_apart() -> None:
    records = RecordDict()
    write_state(records, TUNED, "always_retune")
    write_state(records, replace(TUNED, patch=None, last_day=7), "never_personalise")
    assert read_state(records, "always_retune").patch is not None
    assert read_state(records, "always_retune").last_day == 0
    assert read_state(records, "never_personalise").patch is None
    assert read_state(records, "never_personalise").last_day == 7
    assert read_state(records, "another") == DeviceState()


def test_no_records_are_a_fresh_device() -> None:
    assert read_state(RecordDict()) == DeviceState()


@pytest.mark.parametrize("schema", [1, 2, 3, 4, 5, 99])
def test_a_state_of_another_schema_is_refused(schema: int) -> None:
    records = RecordDict()
    write_state(records, DeviceState())
    (config,) = records.config_records.values()
    config["schema"] = schema
    with pytest.raises(ValueError, match=f"must have schema 6, got {schema}"):
        read_state(records)


def test_the_state_that_schema_1_wrote_is_refused() -> None:
    # it knew the version of the release held, and not the release
    plain = {"last_day": 3, "release": 1, "buffer": [], "patch": None, "extra_bytes": 0}
    written = ConfigRecord({"schema": 1, "json": json.dumps(plain)})
    with pytest.raises(ValueError, match="must have schema 6, got 1"):
        read_state(RecordDict({"/device": written}))


def test_what_is_written_is_json_with_no_more_than_the_fields() -> None:
    records = RecordDict()
    write_state(records, TUNED)
    plain = json.loads(cast(str, records.config_records["/device"]["json"]))
    fields = {"last_day", "held", "settled", "buffer", "extra_bytes"}
    fields |= {"notes", "seen", "asked", "before", "history"}
    assert plain.keys() == fields


def test_a_state_over_its_quota_is_a_fault_of_ours() -> None:
    size = some_patch().size_bytes
    assert check_quota(TUNED, Quota(buffer_bytes=1, total_bytes=size)) is TUNED
    with pytest.raises(RuntimeError, match=f"{size} bytes in all, over its quota"):
        check_quota(TUNED, Quota(buffer_bytes=1, total_bytes=size - 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last_day": "1"}, r"device state\.last_day must be a whole number"),
        ({"held": {"type": "Shapes"}}, r"device state\.held"),
        ({"buffer": [{"question": 1}]}, "must hold exchanges"),
        ({"buffer": 3}, "must hold exchanges"),
        (
            {"buffer": [{"question": 1, "response": "", "day": 0, "order": 0}]},
            "exchanges of texts and days",
        ),
        ({"notes": [["*", [], True]]}, "must hold base64"),
        ({"notes": [[1]]}, r"device state\.notes\[0\] must have 3 entries"),
        ({"history": {"x": 1}}, r"device state\.history"),
        ({"more": 1}, r"device state\.more is not a known key"),
    ],
)
def test_a_damaged_state_is_refused_with_its_field(change: dict[str, object], message: str) -> None:
    records = RecordDict()
    write_state(records, TUNED)
    config = records.config_records["/device"]
    config["json"] = json.dumps(json.loads(cast(str, config["json"])) | change)
    with pytest.raises(ValueError, match=message):
        read_state(records)


def test_a_state_that_comes_back_still_knows_its_notes_and_the_release_before() -> None:
    note = Note(vector=b"\x00\x3c", scores=(0.5,), asked=True)
    exchange = Exchange(question="q", response="r", day=0, order=0)
    state = replace(TUNED, buffer=(exchange,), notes=(note,), before=some_release(0))
    records = RecordDict()
    write_state(records, state)
    assert replace(read_state(records), patch=None) == replace(state, patch=None)
