"""Joules of a training step on a GPU by NVML, by cut, against the work model's ratios.

    python benchmarks/gpu_energy.py [--quick]

The cases of `placement.py` on a random model of SmolLM2-135M's shape: adapters in the upper c of
the layers, without a prefix cache (a probe's pass) and with one (steps of a tune). NVML's counter
of the whole board's energy is read around many steps; the board's idle draw, measured first, is
taken off. Beside every ratio to the full step stands the one of `fleettune.cost.work`'s FLOP.
Without a GPU, or without NVML's Python package (nvidia-ml-py), it says so and ends well. It was
written without a GPU: no figure of it exists yet.
"""

from __future__ import annotations

from simulations.engines.environment import set_environment

set_environment()

import importlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from placement import BATCH, LAYERS, SHARES, TOKENS, jobs_of, layers_of, random_model

from fleettune.backbone.causal_lm import load_backbone
from fleettune.backbone.processor import CUDA, REFERENCE, place_tensors_on
from fleettune.cohort.probe import probe_cohort
from fleettune.cohort.tune import tune_cohort
from fleettune.cost.work import backward_work, forward_work
from fleettune.shapes import MODULES, Shapes, Site
from measure import emit, run_figures

FIGURE = "gpu_step_joules"


def joules(handle: Any, nvml: Any, run: Callable[[], object]) -> tuple[float, float]:  # noqa: ANN401
    """Returns the board's joules and the seconds of a call."""
    torch.cuda.synchronize()
    before, started = nvml.nvmlDeviceGetTotalEnergyConsumption(handle), time.perf_counter()
    run()
    torch.cuda.synchronize()
    spent_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) - before
    return spent_mj / 1e3, time.perf_counter() - started


def counted(shapes: Shapes, case: str, *, cached: bool) -> float:
    """Returns the FLOP of a case's step as the work model counts them."""
    first = min(layers_of(case))
    ranks = {Site(layer, module): 8 for layer in layers_of(case) for module in MODULES}
    lengths, head = [TOKENS] * BATCH, BATCH * TOKENS // 2
    forward = forward_work(shapes, lengths, head, ranks).flop
    below = 2 * BATCH * TOKENS * first * shapes.linear_parameters / shapes.layers if cached else 0.0
    return forward - below + backward_work(shapes, lengths, head, ranks).flop


def measure_cuts(quick: bool) -> None:
    """Prints one line per case and kind of pass."""
    steps = 50 if quick else 400
    if not torch.cuda.is_available():
        emit(FIGURE, "not applicable: no CUDA device")
        return
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        emit(FIGURE, "not available: nvidia-ml-py is not installed")
        return
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
    with tempfile.TemporaryDirectory() as folder:
        random_model(Path(folder))
        backbone = load_backbone(Path(folder), REFERENCE, CUDA)
    idle_j, idle_s = joules(handle, nvml, lambda: time.sleep(5))
    full: dict[bool, tuple[float, float]] = {}
    for case in map(str, SHARES):
        probe, tune = jobs_of(backbone, case, steps)
        for cached, run in (
            (False, partial(probe_cohort, backbone, [probe])),
            (True, partial(tune_cohort, backbone, [tune])),
        ):
            with place_tensors_on(backbone.device):
                run()
                spent_j, time_s = joules(handle, nvml, run)
            step_j = (spent_j - idle_j / idle_s * time_s) / steps
            flop = counted(backbone.shapes, case, cached=cached)
            reference = full.setdefault(cached, (step_j, flop))
            detail = {
                "joules_above_idle": round(step_j, 5),
                "ratio": round(step_j / reference[0], 3),
                "ratio_of_flop": round(flop / reference[1], 3),
                "layers": len(layers_of(case)),
                "of": LAYERS,
                "prefix_cache": cached,
                "steps": steps,
                "idle_w": round(idle_j / idle_s, 1),
            }
            emit(f"{FIGURE}_{case}{'_cached' if cached else ''}", detail["ratio"], detail)


if __name__ == "__main__":
    run_figures("Joules of a training step on a GPU.", {FIGURE: measure_cuts})
