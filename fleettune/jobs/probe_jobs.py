"""Probe jobs: the adapters of a probe, and the passes that measure a benefit.

A probe's A is random and follows from the experiment's seed, its B is zero. Devices and server use
the same A.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleettune.adapters.patch import Factors, Patch, new_factors
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import ProbeJob
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site

GRADIENT, FISHER = "gradient", "fisher"
BENEFITS = (GRADIENT, FISHER)
"""What counts as a site's benefit."""


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
