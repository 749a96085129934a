"""Tuning throughput on a GPU, and its share of the GPU's own matrix rate.

    python benchmarks/gpu.py [--quick]

SmolLM2-135M in ``fast`` precision (bf16 backbone, fp32 adapters of rank 8 on all matrices), one
example of 48 tokens per device and step, K devices in one pass. Seconds are wall seconds of a whole
tune, best of several, the GPU's queue empty at both ends. Without a GPU it says so and ends well.
It was written without one: no figure of it exists yet.
"""

from __future__ import annotations

from simulations.engines.environment import set_environment

set_environment()

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from fleettune.backbone.causal_lm import Backbone, load_backbone
from fleettune.backbone.processor import CUDA, FAST, fast_units, place_tensors_on
from fleettune.cohort.tune import tune_cohort
from measure import TuneSize, count_gflop, emit, random_tune, run_figures

FIGURE = "gpu_smollm2_samples_per_s"
SMOLLM2 = Path(".cache/models/smollm2_135m")
DEVICES = (64, 128, 256, 512)
TOKENS = 48
SIDE = 8192
"""Rows and columns of the matrices whose product is the yardstick."""


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


def matmul_flop_per_s(device: torch.device, side: int, rounds: int) -> float:
    """Returns the rate of a large bf16 matrix product."""
    left, right = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    return 10 * 2 * side**3 / best_s(lambda: [left @ right for _ in range(10)], device, rounds)


def measure(backbone: Backbone, devices: int, peak: float, steps: int, rounds: int) -> None:
    """Prints the throughput of one pass of K devices."""
    size = TuneSize(steps=steps, batch=1, tokens=TOKENS, examples=steps)
    layers = range(backbone.shapes.layers)
    jobs = [random_tune(size, backbone.shapes, layers, device) for device in range(devices)]
    tune = partial(tune_cohort, backbone, jobs)
    with place_tensors_on(backbone.device):
        gflop, _ = count_gflop(tune)
        seconds = best_s(tune, backbone.device, rounds)
    samples = devices * steps / seconds
    detail = {
        "devices": devices,
        "tokens_per_s": round(samples * TOKENS),
        "share_of_bf16_matmul": round(1e9 * gflop / seconds / peak, 4),
        "bf16_matmul_tflop_per_s": round(peak / 1e12, 2),
        "work_tflop": round(gflop / 1e3, 4),
        "best_s": round(seconds, 4),
        "steps_tokens_rank": [steps, TOKENS, 8],
        "precision": FAST,
    }
    emit(f"{FIGURE}_k{devices}", round(samples, 1), detail)


def obstacle() -> str:
    """Returns why nothing can be measured here; empty if it can."""
    if not torch.cuda.is_available():
        return "not applicable: no CUDA device"
    if not fast_units(CUDA):
        return "not applicable: this GPU has no bf16 units"
    if not (SMOLLM2 / "config.json").is_file():
        return "not available: SmolLM2-135M is not there, `make smollm2` fetches it"
    return ""


def measure_all(quick: bool) -> None:
    """Measures all numbers of devices."""
    if reason := obstacle():
        emit(FIGURE, reason)
        return
    steps, rounds = (4, 2) if quick else (16, 5)
    backbone = load_backbone(SMOLLM2, FAST, CUDA)
    peak = matmul_flop_per_s(backbone.device, SIDE, rounds)
    for devices in DEVICES:
        measure(backbone, devices, peak, steps, rounds)


if __name__ == "__main__":
    run_figures("Tuning throughput on a GPU.", {FIGURE: measure_all})
