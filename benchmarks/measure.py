"""What the benchmarks share: a command line of figures, clocks, made-up tunes, and JSON lines."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from fleettune.adapters.patch import Placement, new_patch
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import TuneJob
from fleettune.shapes import MODULES, Shapes, Site
from simulations.engines.environment import quieten_flower

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Processor features that the matrix library makes use of, as Linux names them."""
Figures = Mapping[str, Callable[[bool], None]]
"""By name, what measures and prints a figure; it is told whether to be quick."""


def run_figures(description: str, figures: Figures) -> None:
    """Measures the figures that the command line names, all by default, on one thread."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer devices, steps and rounds")
    parser.add_argument("figures", nargs="*", help=f"of {', '.join(figures)}; all by default")
    given = parser.parse_intermixed_args()
    if unknown := sorted(set(given.figures) - set(figures)):
        parser.error(f"figures must be of {', '.join(figures)}, got {unknown[0]}")
    quieten_flower()
    torch.set_num_threads(1)
    for name in given.figures or figures:
        figures[name](given.quick)


def emit(name: str, value: float | str | None, detail: Mapping[str, Any] | None = None) -> None:
    """Prints a figure as a JSON line, at once; text as its value says why there is no number."""
    record = {"name": name, "value": value, "detail": {**(detail or {}), **machine()}}
    print(json.dumps(record), flush=True)


def machine() -> dict[str, Any]:
    """Returns what the figure was measured on."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    words = dict(reversed([tuple(map(str.strip, line.partition(":")[::2])) for line in lines]))
    present = set(words.get("flags", "").split())
    return {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu": words.get("model name", platform.machine()),
        "flags": [flag for flag in FLAGS if flag in present],
        "torch": torch.__version__,
    }


def rss_mb() -> float:
    """Returns the resident memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_s(work: Callable[[], object]) -> float:
    """Returns the CPU seconds of a piece of work."""
    before = time.process_time()
    work()
    return time.process_time() - before


def rounded(values: Sequence[float]) -> list[float]:
    """Returns values with four digits behind the point."""
    return [round(value, 4) for value in values]


def peak_gflops(dtype: torch.dtype) -> float:
    """Returns the best rate of a large matrix multiplication, GFLOP per CPU second."""
    left, right = torch.randn(1024, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    best = min(cpu_s(lambda: [left @ right for _ in range(10)]) for _ in range(5))
    return 10 * 2 * 1024**3 / best / 1e9


def count_gflop(work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the GFLOP of the matrix products and attention of a piece of work, and its result."""

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


def save_random_llama(folder: Path, **sizes: int) -> Path:
    """Writes a random Llama of these sizes, as transformers names them, and returns its folder."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **sizes)).save_pretrained(folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class TuneSize:
    """Steps of a tune, examples of a step, tokens of an example, and unlike examples in all."""

    steps: int
    batch: int
    tokens: int
    examples: int


def random_tune(
    size: TuneSize, shapes: Shapes, layers: Iterable[int], seed: int = 0, release: str = ""
) -> TuneJob:
    """Returns a tune on random tokens, half of them prompt, with LoRA of rank 8.

    Adapters are on all matrices of the layers.
    """
    rng = np.random.default_rng((seed, size.tokens))
    drawn = rng.integers(4, shapes.vocab, (size.examples, size.tokens)).tolist()
    examples = [Example(tokens=tuple(row), prompt=size.tokens // 2) for row in drawn]
    sites = tuple(Site(layer, module) for layer in layers for module in MODULES)
    rows = (range(step * size.batch, (step + 1) * size.batch) for step in range(size.steps))
    return TuneJob(
        release=release,
        start=new_patch(Placement(sites=sites, rank=8, alpha=16.0), shapes, 0, rng),
        batches=tuple(tuple(examples[row % size.examples] for row in step) for step in rows),
        learning_rate=5e-3,
        clip=1.0,
    )
