"""What a machine can and how it was used: seconds, rates, floating point operations, flags."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
MATMUL = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::baddbmm_")
PACKED = "mkldnn::_linear_pointwise"


def cpu_s(work: Callable[[], object]) -> float:
    """Returns the CPU seconds of a piece of work."""
    before = time.process_time()
    work()
    return time.process_time() - before


def peak_gflops(dtype: torch.dtype) -> float:
    """Returns the best rate of a large matrix multiplication, GFLOP per CPU second."""
    left, right = torch.randn(1024, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    best = min(cpu_s(lambda: [left @ right for _ in range(10)]) for _ in range(5))
    return 10 * 2 * 1024**3 / best / 1e9


def counted_gflop(work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the GFLOP of a piece of work's products, and its result."""

    def in_place(_: Any, a: Sequence[int], b: Sequence[int], **_rest: Any) -> int:  # noqa: ANN401
        return 2 * a[0] * a[1] * a[2] * b[2]

    def packed(x: Sequence[int], *rest: Any, **_rest: Any) -> int:  # noqa: ANN401
        # the weight comes first or, with something to add, second; a bias there is never
        return 2 * math.prod(x) * (rest[0] if rest[1] is None else rest[1])[0]

    mapping: Any = {
        torch.ops.aten.baddbmm_: in_place,
        torch.ops.mkldnn._linear_pointwise: packed,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        result = work()
    return counter.get_total_flops() / 1e9, result


def kind_of(name: str) -> str:
    """Returns the kind of work that an operation of the profile is."""
    if name in MATMUL or name == PACKED:
        return "matmul"
    if "scaled_dot_product" in name:
        return "attention"
    return "elementwise, norms, softmax, copies" if name.startswith("aten::") else "autograd"
