"""Deltas: bytes worked out by hand, the form that is small and exact enough, who is offered one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fleettune.releases.manifest import ReleaseDelta
from fleettune.seeds import Purpose, stream
from fleettune.shapes import Shapes
from strategies.releases.payloads import delta_between, factors_bytes, form_of
from strategies.releases.schedule import ReleasePlan

SHAPES = Shapes(hidden=8, layers=2, heads=2, kv_heads=1, head_dim=4, ffn=12, vocab=16)
LOW = ReleasePlan(
    name="low",
    kind="low_rank",
    steps=1,
    learning_rate=1e-3,
    batch=1,
    window=2,
    conversations=1,
    rank=1,
    top_layers=5,
)
FULL = replace(LOW, name="all", kind="full", rank=16, top_layers=12)


def normal(*shape: int) -> torch.Tensor:
    return torch.as_tensor(
        stream(0, Purpose.RELEASE, 8, *shape).normal(size=shape), dtype=torch.float32
    )


def folder_of(parent: Path, name: str, tensors: dict[str, torch.Tensor]) -> Path:
    folder = parent / name
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_change_of_ordinary_spread_is_sent_in_int8() -> None:
    # One byte per entry and a scale of 4 bytes per row; half precision takes 2 * 1536 bytes.
    assert form_of(normal(16, 96)) == ("int8", 16 * 96 + 4 * 16)
    # A norm is one row.
    assert form_of(normal(96)) == ("int8", 96 + 4)


def test_a_change_that_int8_would_blur_is_sent_in_half_precision() -> None:
    # One entry of 127 makes the steps 1 wide, so all entries of 0.4 are lost: the error is
    # 0.4 * sqrt(n - 1), the change sqrt(127^2 + 0.4^2 (n - 1)). At n = 96: 3.9 / 127.06 = 3.1 %.
    change = torch.full((1, 96), 0.4)
    change[0, 0] = 127.0
    assert form_of(change) == ("fp16", 192)
    # At n = 26: 2 / 127.02 = 1.6 %, under the 2 % that are allowed.
    assert form_of(change[:, :26]) == ("int8", 30)


def test_rows_of_four_entries_are_no_smaller_in_int8() -> None:
    # a row would take its entries and a scale of four bytes, eight as well
    assert form_of(normal(10, 4)) == ("fp16", 80)


def test_what_did_not_change_costs_nothing(tmp_path: Path) -> None:
    old = {"a": normal(4, 32), "b": normal(3, 32), "norm": normal(32)}
    new = {**old, "b": old["b"] + normal(3, 32), "norm": old["norm"] + 0.1 * normal(32)}
    first = folder_of(tmp_path, "first", old)
    later = folder_of(tmp_path, "later", new)
    # The matrix has 96 entries and three scales of 4 bytes, the norm 32 entries and one scale.
    found = delta_between(first, later, SHAPES, 2, [FULL])
    assert found == ReleaseDelta(since=2, kind="int8", size_bytes=108 + 36)
    assert delta_between(first, first, SHAPES, 2, [FULL]) == ReleaseDelta(
        since=2, kind="unchanged", size_bytes=0
    )


def test_a_tensor_of_either_form_is_told(tmp_path: Path) -> None:
    blurred = torch.full((1, 96), 0.4)
    blurred[0, 0] = 127.0
    old = {"a": torch.zeros(16, 96), "b": torch.zeros(1, 96)}
    new = {"a": normal(16, 96), "b": blurred, "new": normal(16, 96)}
    first, later = folder_of(tmp_path, "first", old), folder_of(tmp_path, "later", new)
    # A tensor that was not there is a change from nothing.
    assert delta_between(first, later, SHAPES, 0, [FULL]) == ReleaseDelta(
        since=0, kind="fp16_int8", size_bytes=2 * (16 * 96 + 64) + 192
    )


def test_low_rank_factors_by_hand() -> None:
    # d = 8, q = 8, k = v = 4, m = 12: inputs plus outputs 16 + 12 + 12 + 16 + 20 + 20 + 20 = 116.
    # Rank 1 on both layers, two bytes each; five layers were asked for, two are there.
    assert factors_bytes(SHAPES, [LOW]) == 2 * 2 * 116
    assert factors_bytes(SHAPES, [replace(LOW, top_layers=1, rank=3)]) == 2 * 3 * 116
    # Factors of two releases in a row are sent one after the other.
    assert factors_bytes(SHAPES, [LOW, LOW]) == 2 * 464
    assert factors_bytes(SHAPES, [LOW, FULL]) is None
    assert factors_bytes(SHAPES, [None]) is None


@pytest.mark.parametrize(("plan", "kind"), [(LOW, "low_rank"), (FULL, "int8")])
def test_factors_are_offered_where_they_exist_and_are_smaller(
    tmp_path: Path, plan: ReleasePlan, kind: str
) -> None:
    old = {"a": normal(16, 96)}
    first = folder_of(tmp_path, "first", old)
    later = folder_of(tmp_path, "later", {"a": 2 * old["a"]})
    found = delta_between(first, later, SHAPES, 0, [plan])
    assert (found.kind, found.size_bytes) == (kind, 464 if kind == "low_rank" else 1600)
    wide = delta_between(first, later, SHAPES, 0, [replace(LOW, rank=4)])
    assert (wide.kind, wide.size_bytes) == ("int8", 1600)  # 4 * 464 bytes of factors are more
