"""Probes of sites: their adapters and passes, the benefits they find, and sites that agree.

A probe's A is random and follows from the experiment's seed; its B is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clients.tuning.context import PlacementContext, Preparation
from clients.work.stage_work import probe_work
from fleettune.adapters.patch import Factors, Patch, new_factors
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import ProbeJob, ProbeResult
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site

GRADIENT, FISHER = "gradient", "fisher"
BENEFITS = (GRADIENT, FISHER)
"""What counts as a site's benefit."""

Gradients = Mapping[Site, NDArray[np.float32]]


def probe_patch(seed: int, shapes: Shapes, release: int, depth: int, rank: int) -> Patch:
    """Returns a probe of every site from a layer on, with one A per module type.

    Args:
        seed: The experiment's.
        shapes: The backbone's.
        release: Its version.
        depth: The lowest layer.
        rank: Rank of every adapter.
    """
    found: dict[str, Factors] = {}
    for index, (module, (n_in, n_out)) in enumerate(shapes.matrices().items()):
        rng = stream(seed, Purpose.PROBE, index)
        found[module] = new_factors(n_in, n_out, rank, rng)
    factors = {
        Site(layer, module): found[module]
        for layer in range(depth, shapes.layers)
        for module in MODULES
    }
    return Patch(release=release, alpha=float(rank), factors=factors)


def probing_jobs(
    release: str, probe: Patch, batches: Sequence[tuple[Example, ...]], benefit: str
) -> list[ProbeJob]:
    """Returns the jobs that measure a benefit: one of all batches, or for `FISHER` one per batch.

    A site's benefit is the sum over their results.
    """
    parts = [(batch,) for batch in batches] if benefit == FISHER else [tuple(batches)]
    return [ProbeJob(release=release, probe=probe, batches=part) for part in parts]


def run_probes(context: PlacementContext, jobs: Sequence[ProbeJob]) -> Preparation:
    """Returns what probes find on a device, and what they ask of it."""
    return Preparation(
        entries=probe_work(context.facts, context.release, jobs),
        probed=tuple(context.compute.probe(job) for job in jobs),
    )


def sum_gradients(results: Sequence[ProbeResult]) -> Gradients:
    """Returns every site's gradient to B, ``(n_out, rank)``, summed over the results."""
    first, *others = results
    total = {site: array.astype(np.float64) for site, array in first.gradients.items()}
    for result in others:
        for site, array in result.gradients.items():
            total[site] += array
    return {site: array.astype(np.float32) for site, array in total.items()}


def benefits(results: Sequence[ProbeResult], kind: str) -> dict[Site, float]:
    """Returns the benefit of every site.

    ``gradient``: squared norm of the gradient summed over all batches, the first-order decrease of
    the loss per unit step (docs/methods.md#gradcut-by-joule-benefits). ``fisher``: sum over the
    results of their squared norms, the trace of the empirical Fisher information where each result
    is one batch; it does not cancel where batches pull apart.
    """
    if kind == GRADIENT:
        return {
            site: float(np.square(array, dtype=np.float64).sum())
            for site, array in sum_gradients(results).items()
        }
    return {site: sum(result.benefit[site] for result in results) for site in results[0].benefit}


def alignment(gradients: Sequence[NDArray[np.float32]]) -> float:
    """Returns ``||sum g||^2 / (n sum ||g||^2)``: 1 for equal gradients, 1/n for orthogonal ones."""
    total = np.sum(gradients, axis=0, dtype=np.float64)
    squares = sum(float(np.square(array, dtype=np.float64).sum()) for array in gradients)
    return float(np.square(total).sum()) / (len(gradients) * squares) if squares > 0 else 0.0


def group_aligned(gradients: Gradients, threshold: float) -> tuple[tuple[Site, ...], ...]:
    """Returns groups of two or more sites whose gradients agree, largest benefit first.

    A site joins the group with which it agrees best, if that stays at or above the threshold. Only
    sites of one module type share, so their matrices have one shape wherever the model is.
    """
    groups: list[list[Site]] = []
    norms = {
        site: float(np.square(array, dtype=np.float64).sum()) for site, array in gradients.items()
    }
    for site in sorted(gradients, key=lambda one: (-norms[one], one)):
        scored = [
            (alignment([gradients[one] for one in (*group, site)]), -index)
            for index, group in enumerate(groups)
            if group[0].module == site.module
        ]
        best = max(scored, default=(0.0, 0))
        if scored and best[0] >= threshold:
            groups[-best[1]].append(site)
        else:
            groups.append([site])
    return tuple(tuple(sorted(group)) for group in groups if len(group) > 1)
