"""Rankings: the server probes a release once, so that no device has to.

Source: docs/methods.md#rankings-by-the-server.

The probe is the devices' own, at every site and on text of users outside the fleet: one exchange of
each conversation in turn, so that as many users as there are speak. A ranking is kept in the
release store under the digest of its jobs, with the release by its weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from fleettune.cohort.execute import Execute, execute_here
from fleettune.data.exchanges import Exchange, Population, take_in_turn
from fleettune.data.tokens import Example, open_encoder
from fleettune.jobs.jobs import ProbeJob, ProbeResult, job_digest
from fleettune.jobs.probe_jobs import probe_patch, probing_jobs
from fleettune.releases.manifest import Manifest
from fleettune.releases.site_ranking import ProbeRecipe, Ranking
from fleettune.whole_files import write_whole

BATCH = 8
"""Exchanges of a batch."""
TEXT = 500
"""Text is keyed by it and the version, so no release below it was trained on the same."""
DIGITS = 7
"""Significant digits of a benefit: what single precision holds."""

VERSION = 1
"""Part of every ranking's key: raised when equal jobs would give another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranker:
    """Makes rankings of releases.

    Attributes:
        recipes: What the arms ask for, each once; mostly nothing.
        store: Folder that holds rankings by content.
        population: Where text of users outside the fleet comes from.
        seed: Key of text and adapters.
        run: Runs jobs.
    """

    recipes: tuple[ProbeRecipe, ...]
    store: Path
    population: Population
    seed: int
    run: Execute = execute_here

    def rank(self, release: Manifest) -> Manifest:
        """Returns a release's manifest with a ranking for every recipe."""
        if not self.recipes:
            return release
        found = tuple(self._ranking(release, recipe) for recipe in self.recipes)
        return replace(release, rankings=found)

    def list_probes(self, release: Manifest) -> list[dict[str, Any]]:
        """Returns what a release was probed by: recipe, [tokens, supervised] of every example."""
        return [
            {"release": release.version, "recipe": asdict(recipe)}
            | {"batches": [[_lengths(e) for e in batch] for batch in self._text(release, recipe)]}
            for recipe in self.recipes
        ]

    def _ranking(self, release: Manifest, recipe: ProbeRecipe) -> Ranking:
        jobs = self._jobs(release, recipe)
        file = self.store / f"{_key(jobs, release)}.ranking"
        if not file.is_file():
            benefits = _benefits(cast(Sequence[ProbeResult], self.run(jobs)))
            write_whole(file, json.dumps(benefits).encode())
        kept: list[tuple[str, float]] = json.loads(file.read_text())
        return Ranking(recipe=recipe, benefits=tuple((site, value) for site, value in kept))

    def _jobs(self, release: Manifest, recipe: ProbeRecipe) -> list[ProbeJob]:
        probe = probe_patch(self.seed, release.shapes, release.version, 0, recipe.rank)
        return probing_jobs(release.path, probe, self._text(release, recipe), recipe.benefit)

    def _text(self, release: Manifest, recipe: ProbeRecipe) -> list[tuple[Example, ...]]:
        encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
        needed = recipe.batches * BATCH
        said = outside_exchanges(self.population, needed, self.seed * 1000 + TEXT + release.version)
        examples = [encoder.example(exchange) for exchange in said]
        return [tuple(examples[start : start + BATCH]) for start in range(0, needed, BATCH)]


def outside_exchanges(population: Population, count: int, key: int) -> list[Exchange]:
    """Returns exchanges of users outside the fleet (`fleettune.data.exchanges.take_in_turn`).

    Raises:
        ValueError: If there are fewer.
    """
    found = take_in_turn(population, count, key)
    if len(found) < count:
        raise ValueError(
            f"placement.probe=server needs {count} exchanges of users outside the fleet "
            f"({BATCH} per batch), got {len(found)}: lower placement.probe_batches, raise "
            "data.outside_share or use placement.probe=device"
        )
    return found


def _benefits(results: Sequence[ProbeResult]) -> list[tuple[str, float]]:
    return [
        (str(site), float(f"{sum(result.benefit[site] for result in results):.{DIGITS}g}"))
        for site in results[0].benefit
    ]


def _key(jobs: Sequence[ProbeJob], release: Manifest) -> str:
    digests = [job_digest(replace(job, release=release.digest)) for job in jobs]
    return hashlib.sha256(f"{VERSION} {digests}".encode()).hexdigest()[:32]


def _lengths(example: Example) -> tuple[int, int]:
    return len(example.tokens), example.supervised
