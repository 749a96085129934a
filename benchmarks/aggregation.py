"""Aggregation: how wrong each rule is, and what ten thousand replies of mixed ranks cost.

    python benchmarks/aggregation.py [--quick] [figure ...]

``aggregation_error`` is the relative Frobenius error of every rule against the mean effective
update, one line per drift: ten devices at one 256 x 256 matrix, once all of rank 8, once of ranks
4, 8 and 16 at alpha 16, so with true scales 4, 2 and 1. Drift is the norm of a device's own part of
its factors over that of the common part. Devices weigh the same, or as a Dirichlet draw of
concentration 1 says, which makes the table of docs/methods.md#errors-of-the-rules. ``ranges`` hold
the least and the largest error of all seeds. ``aggregation_memory`` is the peak of traced memory
while replies of mixed ranks and supports are added, over that of a hundred replies, with the
milliseconds per reply.

Set ``OMP_NUM_THREADS=1``: matrices are small, and threads wait for each other longer than they
compute.
"""

from __future__ import annotations

from simulations.engines.environment import set_environment

set_environment()

import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.backbone.causal_lm import POCKET_FOLDER, read_shapes
from fleettune.deltas.frames import ExpectedDelta, read_frame, write_frame
from fleettune.shapes import MODULES, Site
from measure import Figures, emit, run_figures
from strategies.aggregation import (
    Aggregation,
    ExactMean,
    FactorMean,
    MedianOfMeans,
    NormClip,
    Svd,
    TrimmedMean,
    ZeroPad,
)

SITE = Site(0, "q")
SIDE, DEVICES, ALPHA = 256, 10, 16.0
DRIFTS = (0.1, 0.5, 1.0, 3.0)
MIXED = (4, 8, 16)
SHAPES = read_shapes(POCKET_FOLDER)
Weighted = Sequence[tuple[Patch, float]]


def drifted(ranks: Sequence[int], drift: float, seed: int) -> list[Patch]:
    """Returns devices that share the first components of one pair and drifted away from it."""
    rng = np.random.default_rng(seed)
    common_a, common_b = rng.normal(size=(max(ranks), SIDE)), rng.normal(size=(SIDE, max(ranks)))
    found: list[Patch] = []
    for rank in ranks:
        a = common_a[:rank] + drift * rng.normal(size=(rank, SIDE))
        b = common_b[:, :rank] + drift * rng.normal(size=(SIDE, rank))
        item = Factors(a=a.astype(np.float32), b=b.astype(np.float32))
        found.append(Patch(release=0, alpha=ALPHA, factors={SITE: item}))
    return found


def error(rule: Aggregation, weighted: Weighted, *, unscaled: bool = False) -> float:
    """Returns the relative Frobenius error of a rule.

    Args:
        rule: The rule.
        weighted: What it aggregates, with the weight of each.
        unscaled: Whether every patch is taken as if ``alpha / rank`` were 1.
    """
    total = sum(weight for _, weight in weighted)
    truth = sum(weight / total * patch.dense(SITE).astype(np.float64) for patch, weight in weighted)
    aggregate = rule.open()
    for patch, weight in weighted:
        rank = patch.factors[SITE].a.shape[0]
        aggregate.add(replace(patch, alpha=float(rank)) if unscaled else patch, weight)
    found = aggregate.updates()[SITE].dense()
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def measure_error(seeds: int) -> None:
    """Prints every rule's error, one line per drift and way to weigh devices.

    Source: docs/methods.md#errors-of-the-rules.
    """
    mixed = [MIXED[place % len(MIXED)] for place in range(DEVICES)]
    columns: Mapping[str, Callable[[Weighted, Weighted], float]] = {
        "equal_factor_mean": lambda equal, _: error(FactorMean(), equal),
        "equal_svd_8": lambda equal, _: error(Svd(rank=8), equal),
        "mixed_zero_pad": lambda _, other: error(ZeroPad(rank=16, folded=False), other),
        "mixed_zero_pad_folded": lambda _, other: error(ZeroPad(rank=16), other),
        "mixed_stack_unscaled": lambda _, other: error(ExactMean(), other, unscaled=True),
        "mixed_svd_16": lambda _, other: error(Svd(rank=16), other),
        "mixed_stack": lambda _, other: error(ExactMean(), other),
    }
    for weights, drift in product(("uniform", "dirichlet"), DRIFTS):
        pairs = [
            tuple(
                list(zip(drifted(ranks, drift, seed), weights_of(weights, seed), strict=True))
                for ranks in ([8] * DEVICES, mixed)
            )
            for seed in range(seeds)
        ]
        seen = {name: [rule(*pair) for pair in pairs] for name, rule in columns.items()}
        table = {name: float(f"{np.mean(found):.2g}") for name, found in seen.items()}
        ranges = {
            name: [float(f"{edge(found):.2g}") for edge in (min, max)]
            for name, found in seen.items()
        }
        told = {"drift": drift, "weights": weights, "ranks": mixed, "alpha": ALPHA, "seeds": seeds}
        emit("aggregation_error", table["mixed_stack"], {**told, **table, "ranges": ranges})


def weights_of(kind: str, seed: int) -> list[float]:
    """Returns the devices' weights: all equal, or a draw in which a few count for most."""
    if kind == "uniform":
        return [1.0] * DEVICES
    return np.random.default_rng(1000 + seed).dirichlet(np.ones(DEVICES)).tolist()


def replies(count: int) -> Iterator[Patch]:
    """Yields deltas of mixed ranks and supports at the pocket model's shapes, one at a time."""
    matrices = SHAPES.matrices()
    for device in range(count):
        rng = np.random.default_rng(device)
        rank = MIXED[device % len(MIXED)]
        layers = range(SHAPES.layers - 4, SHAPES.layers)
        sites = [Site(layer, module) for layer in layers for module in MODULES]
        factors: dict[Site, Factors] = {}
        for site in sites[device % 3 :: 2]:
            n_in, n_out = matrices[site.module]
            a = rng.standard_normal((rank, n_in), dtype=np.float32)
            b = rng.standard_normal((n_out, rank), dtype=np.float32)
            factors[site] = Factors(a=a, b=b)
        yield Patch(release=0, alpha=ALPHA, factors=factors)


def spent(rule: Aggregation, count: int) -> tuple[float, float]:
    """Returns the peak of traced memory in MB and the milliseconds per reply, reading included."""
    expected = ExpectedDelta(release=0, shapes=SHAPES, limit_bytes=10**7)
    tracemalloc.start()
    aggregate, busy_s = rule.open(), 0.0
    for patch in replies(count):
        frame = write_frame(patch)
        before = time.perf_counter()
        aggregate.add(read_frame(frame, expected), 1.0)
        busy_s += time.perf_counter() - before
    before = time.perf_counter()
    aggregate.updates()
    busy_s += time.perf_counter() - before
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6, 1e3 * busy_s / count


def measure_memory(count: int) -> None:
    """Prints the peak over that of a hundred replies, for every rule that takes mixed ranks."""
    rules: Mapping[str, Aggregation] = {
        "stack": ExactMean(),
        "svd": Svd(rank=8),
        "zero_pad": ZeroPad(rank=16),
        "norm_clip": NormClip(norm=100.0),
        "trimmed_mean": TrimmedMean(trim=2),
        "median": MedianOfMeans(groups=15),
    }
    for name, rule in rules.items():
        few_mb, few_ms = spent(rule, 100)
        many_mb, many_ms = spent(rule, count)
        detail = {
            "rule": name,
            "replies": count,
            "at_most": 1.5,
            "peak_mb": {"100": round(few_mb, 2), str(count): round(many_mb, 2)},
            "ms_per_reply": {"100": round(few_ms, 3), str(count): round(many_ms, 3)},
        }
        emit("aggregation_memory", round(many_mb / few_mb, 3), detail)


FIGURES: Figures = {
    "aggregation_error": lambda quick: measure_error(1 if quick else 10),
    "aggregation_memory": lambda quick: measure_memory(400 if quick else 10_000),
}

if __name__ == "__main__":
    run_figures("Aggregation of unlike patches.", FIGURES)
