"""The cost model against published measurements and against torch's own counts.

    python benchmarks/calibration.py [--quick] [figure ...]

Nothing here is timed: figures are errors and counts, the same on every machine. Published values
and fits are in `simulations/calibration/`; `docs/energy.md` explains them.
"""

from __future__ import annotations

from simulations.engines.environment import prepare

prepare()

import argparse
import json
import warnings
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch

from fleettune.backbone.causal_lm import POCKET_FOLDER, read_shapes
from fleettune.cost.memory import Attention, saved_activations
from fleettune.cost.work import backward_work, forward_work
from fleettune.shapes import Shapes
from simulations.calibration.fits import (
    Residual,
    inference_fit,
    llmprofiler_residuals,
    max_error,
    mean_error,
    qvac_gflops,
    qvac_phones,
    qvac_residuals,
    xpert_power_w,
    xpert_residuals,
)
from simulations.calibration.oracle import (
    HEAD_TOKENS,
    LENGTHS,
    counted_flop,
    kept_elements,
    placements,
)
from simulations.calibration.published import FITTED_MODEL, LLM_PROFILER

SMOLLM2 = Shapes(hidden=576, layers=2, heads=9, kv_heads=3, head_dim=64, ffn=1536, vocab=49152)
"""Two layers of the shape of SmolLM2-135M."""
WIDE = Shapes(hidden=128, layers=3, heads=8, kv_heads=2, head_dim=16, ffn=256, vocab=256)
KEPT_TOKENS = 48
KEPT_PLACEMENTS = 10
QUICK_PLACEMENTS = 12
ATTENTIONS: tuple[Attention, ...] = ("fused", "eager")


def errors(residuals: Iterable[Residual]) -> dict[str, float]:
    """Returns the relative error of each residual, in percent."""
    return {residual.what: round(100 * residual.error, 1) for residual in residuals}


def measure_xpert(_: bool) -> None:
    """Prints the worst joules of XPerT's runs under one power."""
    detail = {"power_w": round(xpert_power_w(), 4), "percent": errors(xpert_residuals())}
    emit(
        "xpert_energy_residual_max", round(max_error(xpert_residuals()), 4), detail | at_most(0.03)
    )


def measure_qvac(_: bool) -> None:
    """Prints the mean error of times at sizes that the fit has not seen."""
    by_phone = {phone: qvac_residuals(phone) for phone in qvac_phones()}
    every = [residual for residuals in by_phone.values() for residual in residuals]
    detail = {
        "gflop_per_s": {phone: round(qvac_gflops(phone), 1) for phone in by_phone},
        "mean": {phone: round(mean_error(found), 4) for phone, found in by_phone.items()},
        "cells": len(every),
        "percent": errors(every),
    }
    emit("qvac_time_error_mean", round(mean_error(every), 4), detail | at_most(0.12))


def measure_llmprofiler(_: bool) -> None:
    """Prints the mean error of Qwen2.5-1.5B as predicted from Llama-3.2-1B."""
    residuals = llmprofiler_residuals()
    kinds: dict[str, list[Residual]] = {}
    for residual in residuals:
        kinds.setdefault(residual.what.partition(",")[0], []).append(residual)
    fits = {
        f"{row.phone}, {row.engine}": [
            round(value, 3)
            for value in (
                inference_fit(row).prefill_gops,
                inference_fit(row).prefill_mj_per_gop,
                inference_fit(row).decode_gbs,
                inference_fit(row).decode_j_per_gb,
            )
        ]
        for row in LLM_PROFILER
        if row.model == FITTED_MODEL
    }
    detail = {
        "mean": {kind: round(mean_error(found), 4) for kind, found in kinds.items()},
        "worst": round(max_error(residuals), 4),
        "cells": len(residuals),
        "prefill_gops_mj_per_gop_decode_gbs_j_per_gb": fits,
    }
    emit("llmprofiler_error_mean", round(mean_error(residuals), 4), detail | at_most(0.06))


def measure_flop(quick: bool) -> None:
    """Prints in how many cases our FLOP equal those that torch counts."""
    supervised = sum(HEAD_TOKENS)
    wrong: dict[str, list[float]] = {}
    tried = 0
    for name, shapes in {"pocket": read_shapes(POCKET_FOLDER), "smollm2 x 2": SMOLLM2}.items():
        kinds = placements(shapes.layers)
        # the last ones share pairs, so a quick run takes from the end
        for kind in list(kinds)[-QUICK_PLACEMENTS if quick else 0 :]:
            ranks = kinds[kind].ranks
            counted = counted_flop(shapes, kinds[kind])
            for direction, rule, theirs in zip(
                ("forward", "backward"), (forward_work, backward_work), counted, strict=True
            ):
                tried += 1
                ours = rule(shapes, LENGTHS, supervised, ranks).flop
                if ours != theirs:
                    wrong[f"{name}, {kind}, {direction}"] = [ours, theirs]
    emit("flops_exact_cases", tried - len(wrong), {"tried": tried, "wrong": wrong})


def measure_memory(_: bool) -> None:
    """Prints the worst error of saved activations against what torch keeps."""
    found: dict[str, float] = {}
    for kind, placed in islice(placements(WIDE.layers).items(), KEPT_PLACEMENTS):
        for attention in ATTENTIONS:
            kept = kept_elements(WIDE, placed, attention, KEPT_TOKENS)
            ours = saved_activations(WIDE, (KEPT_TOKENS,), KEPT_TOKENS, placed.ranks, attention)
            found[f"{kind}, {attention}"] = round(100 * (ours / kept - 1), 2)
    worst = max(map(abs, found.values())) / 100
    emit(
        "memory_error_max", round(worst, 4), {"cases": len(found), "percent": found} | at_most(0.05)
    )


def at_most(limit: float) -> dict[str, float]:
    """Returns the bound that the tests hold a figure to."""
    return {"at_most": limit}


def emit(name: str, value: float, detail: dict[str, Any]) -> None:
    """Prints one figure as a JSON line."""
    print(json.dumps({"name": name, "value": value, "detail": detail}), flush=True)


FIGURES: dict[str, Callable[[bool], None]] = {
    "xpert_energy_residual_max": measure_xpert,
    "qvac_time_error_mean": measure_qvac,
    "llmprofiler_error_mean": measure_llmprofiler,
    "flops_exact_cases": measure_flop,
    "memory_error_max": measure_memory,
}


def main() -> None:
    """Prints the figures asked for, all of them by default."""
    parser = argparse.ArgumentParser(description="The cost model against measurements.")
    parser.add_argument("--quick", action="store_true", help="fewer placements")
    parser.add_argument("figures", nargs="*", help=f"some of {', '.join(FIGURES)}")
    asked = parser.parse_intermixed_args()
    if unknown := set(asked.figures) - FIGURES.keys():
        parser.error(f"figures must be among {', '.join(FIGURES)}, got {', '.join(unknown)}")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name in asked.figures or FIGURES:
        FIGURES[name](asked.quick)


if __name__ == "__main__":
    main()
