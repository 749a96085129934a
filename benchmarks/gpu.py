"""Tuning throughput on a GPU, and its share of the GPU's own matrix rate.

    python benchmarks/gpu.py [--quick]

SmolLM2-135M in ``fast`` precision (bf16 backbone, fp32 adapters of rank 8 on all matrices), one
example of 48 tokens per device and step, K devices in one pass. Seconds are wall seconds of a whole
tune, best of several, the GPU's queue empty at both ends. Without a GPU it says so and ends well.
It was written without one: no figure of it exists yet.
"""

from __future__ import annotations

from simulations.engines.environment import prepare, quieten

prepare()

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fleettune.adapters.patch import Placement, new_patch
from fleettune.backbone.causal_lm import Backbone, load_backbone
from fleettune.backbone.processor import CUDA, FAST, fast_units, place_tensors_on
from fleettune.cohort.tune import tune_cohort
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import TuneJob
from fleettune.shapes import MODULES, Site
from lines import machine, print_line

FIGURE = "gpu_smollm2_samples_per_s"
SMOLLM2 = Path(".cache/models/smollm2_135m")
DEVICES = (64, 128, 256, 512)
TOKENS = 48
SIDE = 8192
"""Rows and columns of the matrices whose product is the yardstick."""


def job_of(backbone: Backbone, device: int, steps: int) -> TuneJob:
    """Returns one device's tune: an example of random tokens per step, half of it prompt."""
    shapes = backbone.shapes
    rng = np.random.default_rng(device)
    drawn = rng.integers(4, shapes.vocab, (steps, TOKENS)).tolist()
    sites = tuple(Site(layer, module) for layer in range(shapes.layers) for module in MODULES)
    return TuneJob(
        release="",
        start=new_patch(Placement(sites=sites, rank=8, alpha=16.0), shapes, 0, rng),
        batches=tuple((Example(tokens=tuple(row), prompt=TOKENS // 2),) for row in drawn),
        learning_rate=5e-3,
        clip=1.0,
    )


def best_s(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Returns the least wall seconds of several rounds, after one that does not count."""
    times: list[float] = []
    for _ in range(rounds + 1):
        _wait(device)
        before = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - before)
    return min(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == CUDA:
        torch.cuda.synchronize(device)


def work_flop(work: Callable[[], object]) -> int:
    """Returns the FLOP of all matrix products and attention of a piece of work."""

    def in_place(_: Any, a: Sequence[int], b: Sequence[int], **_rest: Any) -> int:  # noqa: ANN401
        return 2 * a[0] * a[1] * a[2] * b[2]

    mapping: Any = {torch.ops.aten.baddbmm_: in_place}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return counter.get_total_flops()


def matmul_flop_per_s(device: torch.device, side: int, rounds: int) -> float:
    """Returns the rate of a large bf16 matrix product."""
    left, right = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    return 10 * 2 * side**3 / best_s(lambda: [left @ right for _ in range(10)], device, rounds)


def measure(backbone: Backbone, devices: int, peak: float, steps: int, rounds: int) -> None:
    """Prints the throughput of one pass of K devices."""
    jobs = [job_of(backbone, device, steps) for device in range(devices)]
    tune = partial(tune_cohort, backbone, jobs)
    with place_tensors_on(backbone.device):
        flop, seconds = work_flop(tune), best_s(tune, backbone.device, rounds)
    samples = devices * steps / seconds
    detail = {
        "devices": devices,
        "tokens_per_s": round(samples * TOKENS),
        "share_of_bf16_matmul": round(flop / seconds / peak, 4),
        "bf16_matmul_tflop_per_s": round(peak / 1e12, 2),
        "work_tflop": round(flop / 1e12, 4),
        "best_s": round(seconds, 4),
        "steps_tokens_rank": [steps, TOKENS, 8],
        "precision": FAST,
    }
    record = {"figure": f"{FIGURE}_k{devices}", "value": round(samples, 1)}
    print_line({**record, "detail": detail | machine()})


def obstacle() -> str:
    """Returns why nothing can be measured here; empty if it can."""
    if not torch.cuda.is_available():
        return "not applicable: no CUDA device"
    if not fast_units(CUDA):
        return "not applicable: this GPU has no bf16 units"
    if not (SMOLLM2 / "config.json").is_file():
        return "not available: SmolLM2-135M is not there, `make smollm2` fetches it"
    return ""


def main() -> None:
    """Measures all numbers of devices."""
    parser = argparse.ArgumentParser(description="Tuning throughput on a GPU.")
    parser.add_argument("--quick", action="store_true", help="fewer steps and rounds")
    asked = parser.parse_args()
    quieten()
    if note := obstacle():
        print_line({"figure": FIGURE, "value": None, "note": note})
        return
    steps, rounds = (4, 2) if asked.quick else (16, 5)
    backbone = load_backbone(SMOLLM2, FAST, CUDA)
    peak = matmul_flop_per_s(backbone.device, SIDE, rounds)
    for devices in DEVICES:
        measure(backbone, devices, peak, steps, rounds)


if __name__ == "__main__":
    main()
