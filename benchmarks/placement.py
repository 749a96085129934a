"""How the time of a training step follows the cut: adapters in the upper c of the layers.

    python benchmarks/placement.py [--quick]

A random model of SmolLM2-135M's shape (30 layers of 576) with a small vocabulary, LoRA of rank 8 on
all seven matrices above the cut, one device, one thread, CPU seconds of this process, all cases
interleaved, the best of every pass. Passes: without a cache every step runs the layers below the
cut forward (a probe's pass: no optimizer); with one it starts at the cut (steps of a tune beyond
its first, so the cache is built outside the figure). Expected, of a full step
(docs/methods.md#time-of-a-step-by-the-cut, docs/methods.md#prefix-cache):
(1 + c) / 2 without a cache, c with one. Adapters cost on top, and the cut itself is a whole layer.
One stray adapter block in layer 0 reaches down through all layers and gives the saving back.
"""

from __future__ import annotations

from simulations.engines.environment import set_environment

set_environment()

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fleettune.backbone.causal_lm import Backbone, load_backbone
from fleettune.cohort.probe import probe_cohort
from fleettune.cohort.tune import tune_cohort
from fleettune.jobs.jobs import ProbeJob, TuneJob
from measure import TuneSize, cpu_s, emit, random_tune, run_figures, save_random_llama

LAYERS, TOKENS, BATCH, RANK = 30, 64, 2, 8
Floats = NDArray[np.float64]
SHARES = (1.0, 0.75, 0.5, 0.25)
STRAY = "0.5+layer0"


def random_model(folder: Path) -> Path:
    """Writes a random model of SmolLM2-135M's shape with 1024 tokens and returns its folder."""
    return save_random_llama(
        folder, hidden_size=576, num_hidden_layers=LAYERS, num_attention_heads=9,
        num_key_value_heads=3, intermediate_size=1536, vocab_size=1024,
    )  # fmt: skip


def layers_of(case: str) -> list[int]:
    """Returns the adapted layers of a case."""
    share = float(case.partition("+")[0])
    upper = list(range(LAYERS - round(share * LAYERS), LAYERS))
    return [0, *upper] if case == STRAY else upper


def jobs_of(backbone: Backbone, case: str, steps: int) -> tuple[ProbeJob, TuneJob]:
    """Returns the same passes as a probe and as a tune of that many steps over one batch."""
    size = TuneSize(steps=steps, batch=BATCH, tokens=TOKENS, examples=BATCH)
    tune = random_tune(size, backbone.shapes, layers_of(case))
    return ProbeJob(release="", probe=tune.start, batches=tune.batches), tune


def passes_s(backbone: Backbone, case: str, steps: int) -> Floats:
    """Returns the seconds of passes, (1 step and 1 + steps, without and with a prefix cache)."""
    found = [
        (
            cpu_s(partial(probe_cohort, backbone, [probe])),
            cpu_s(partial(tune_cohort, backbone, [tune])),
        )
        for probe, tune in (jobs_of(backbone, case, count) for count in (1, 1 + steps))
    ]
    return np.array(found)


def measure_cuts(quick: bool) -> None:
    """Prints one line per case and kind of pass, and what a stray adapter gives back."""
    rounds, steps = (1, 2) if quick else (6, 3)
    cases = [*map(str, SHARES), STRAY]
    # the best of each pass: the least of their differences would be of a slow short one
    least: dict[str, Floats] = {}
    with tempfile.TemporaryDirectory() as folder:
        backbone = load_backbone(random_model(Path(folder)))
        # the first pass of the largest case pays for its memory
        passes_s(backbone, "1.0", 1)
        for _ in range(rounds):
            for case in cases:
                found = passes_s(backbone, case, steps)
                least[case] = np.minimum(found, least.get(case, found))
    best = {case: tuple(map(float, (one[1] - one[0]) / steps)) for case, one in least.items()}
    full, full_cached = best["1.0"]
    for case in cases:
        share = 1.0 if case == STRAY else len(layers_of(case)) / LAYERS
        plain, cached = best[case]
        detail = {"layers": len(layers_of(case)), "steps": steps, "rounds": rounds}
        expected = {"expected": round((1 + share) / 2, 3), "cpu_s": round(plain, 3)}
        emit(f"step_{case}", round(plain / full, 3), detail | expected)
        expected = {"expected": round(share, 3), "cpu_s": round(cached, 3)}
        emit(f"step_cached_{case}", round(cached / full_cached, 3), detail | expected)
    half, stray = best["0.5"][0], best[STRAY][0]
    emit("saving_given_back", round((stray - half) / (full - half), 3), {"expected": "> 0.6"})


if __name__ == "__main__":
    run_figures("The time of a training step by the cut.", {"steps": measure_cuts})
