"""Rankings: what a server's own probe of a release says that an adapter at each site would buy.

The server probes once per release, on text of users outside the fleet, and a ranking travels with
the release's manifest (docs/methods.md#rankings-by-the-server): devices place by it and probe
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fleettune.jobs.probe_jobs import BENEFITS
from fleettune.shapes import Site, parse_site


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRecipe:
    """What tells one ranking of a release from another.

    Attributes:
        benefit: What counts as a site's benefit (`fleettune.jobs.probe_jobs.BENEFITS`).
        rank: Rank of the probe's adapters.
        batches: Batches that the probe looks at.

    Raises:
        ValueError: If a value breaks its rule.
    """

    benefit: str
    rank: int
    batches: int

    def __post_init__(self) -> None:
        if self.benefit not in BENEFITS:
            raise ValueError(f"recipe.benefit must be one of {BENEFITS}, got {self.benefit!r}")
        for name, value in (("rank", self.rank), ("batches", self.batches)):
            if value < 1:
                raise ValueError(f"recipe.{name} must be >= 1, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The benefits of a release's sites.

    Attributes:
        recipe: How they were measured.
        benefits: Site, as ``layer.module``, and benefit; each site once.

    Raises:
        ValueError: If a site is named twice, or a benefit is no finite number >= 0.
    """

    recipe: ProbeRecipe
    benefits: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.benefits]
        if len(set(names)) < len(names):
            raise ValueError(f"a ranking must name each site once, got {names}")
        if bad := [one for one in self.benefits if not 0 <= one[1] < math.inf]:
            raise ValueError(f"a ranking's benefits must be finite and >= 0, got {bad[0]}")

    @property
    def by_site(self) -> Mapping[Site, float]:
        """The benefit of every site, in the order given."""
        return {parse_site(name): value for name, value in self.benefits}
