"""The adapters of a probe: A random and fixed, B zero, the same for everybody."""

from __future__ import annotations

from fleettune.adapters import Factors, Patch, untrained
from fleettune.seeds import Purpose, stream
from fleettune.sites import MODULES, Site
from fleettune.work import Shapes


def probe_patch(seed: int, shapes: Shapes, release: int, depth: int, rank: int) -> Patch:
    """Returns a probe of every site from a layer on: one A per module type, equal on all devices.

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
        found[module] = untrained(n_in, n_out, rank, rng)
    factors = {
        Site(layer, module): found[module]
        for layer in range(depth, shapes.layers)
        for module in MODULES
    }
    return Patch(release=release, alpha=float(rank), factors=factors)
