"""Payloads: how many bytes bring a device from an earlier version to a release.

A delta holds, for every tensor that changed, the difference in one of two forms: int8 with a
single-precision scale per row (a norm is one row), or half precision. int8 is taken where it is
smaller and exact enough: the Frobenius norm of its error is at most `TOLERANCE` of that of the
change. Half precision is the finest form on offer. A tensor that did not change costs nothing;
names and shapes, which the device knows, are not counted. Where all releases since the earlier
version are low-rank, their factors in half precision are another form; a release is made from its
factors, so they are exact but for that rounding. The smaller one is offered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fleettune.releases.manifest import ReleaseDelta
from fleettune.releases.model_files import open_weights
from fleettune.shapes import MODULES, Shapes
from strategies.releases.schedule import ReleasePlan

TOLERANCE = 0.02
"""Largest error of an int8 delta relative to the change, per tensor (our choice)."""

HALF_BYTES = 2
SCALE_BYTES = 4
LEVELS = 127


def delta_between(
    earlier: Path, later: Path, shapes: Shapes, since: int, plans: Sequence[ReleasePlan | None]
) -> ReleaseDelta:
    """Returns the smallest delta of a release since an earlier version.

    Args:
        earlier: Folder of the earlier version.
        later: Folder of the release.
        shapes: Shapes of both.
        since: The earlier version.
        plans: How every release after it was made, up to this one.
    """
    parts = [form_of(change) for change in _changes(earlier, later)]
    kinds = "_".join(sorted({kind for kind, _ in parts})) or "unchanged"
    dense = ReleaseDelta(since=since, kind=kinds, size_bytes=sum(size for _, size in parts))
    factors = factors_bytes(shapes, plans)
    if factors is None or factors >= dense.size_bytes:
        return dense
    return ReleaseDelta(since=since, kind="low_rank", size_bytes=factors)


def form_of(change: Tensor) -> tuple[str, int]:
    """Returns in which form a tensor's change is sent, and its bytes."""
    rows = change.reshape(1 if change.dim() < 2 else len(change), -1)
    half, coarse = HALF_BYTES * rows.numel(), rows.numel() + SCALE_BYTES * len(rows)
    scale = rows.abs().amax(dim=1, keepdim=True) / LEVELS
    whole = torch.where(scale > 0, rows / scale, torch.zeros(())).round()
    error = (whole * scale - rows).square().sum().sqrt()
    is_exact_enough = bool(error <= TOLERANCE * rows.square().sum().sqrt())
    return ("int8", coarse) if is_exact_enough and coarse < half else ("fp16", half)


def factors_bytes(shapes: Shapes, plans: Iterable[ReleasePlan | None]) -> int | None:
    """Returns the bytes of all factors of low-rank releases; None if one is of another kind."""
    total = 0
    for plan in plans:
        if plan is None or plan.kind != "low_rank":
            return None
        layers = min(plan.top_layers, shapes.layers)
        entries = sum(sum(shapes.matrices()[module]) for module in MODULES)
        total += HALF_BYTES * layers * plan.rank * entries
    return total


def _changes(earlier: Path, later: Path) -> Iterator[Tensor]:
    """Yields the difference of every tensor that is not what it was, in single precision."""
    with open_weights(earlier) as old, open_weights(later) as new:
        known = set(old.keys())
        for name in new.keys():  # noqa: SIM118 - it is no mapping
            tensor: Tensor = new.get_tensor(name).float()
            change = tensor - old.get_tensor(name).float() if name in known else tensor
            if bool(change.any()):
                yield change
