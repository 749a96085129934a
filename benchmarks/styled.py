"""The world of the warm-start figures: entries in every style, users mixed with one of them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from clients.placement.rules import TopLayers
from clients.start.nearest_entry import WarmStart
from clients.tuning.schedule import Tuning
from fleettune.adapters.patch import Patch
from fleettune.backbone.causal_lm import POCKET_FOLDER, read_shapes
from fleettune.cohort.execute import Execute, execute
from fleettune.data.exchanges import Exchange
from fleettune.data.personas import SyntheticData
from fleettune.data.styles import StyledData, plain_questions, style_corpus, style_grid
from fleettune.jobs.jobs import Compute, ScoreJob, ScoreResult
from fleettune.releases.manifest import Manifest
from strategies.catalogue import entries as catalogue
from strategies.catalogue.candidate_words import Answering
from strategies.catalogue.entry_tuning import Recipe, corpus_entries

STYLES = style_grid((0, 3))
SIMILARITIES = (0.3, 0.5, 0.7, 0.8, 0.9)
WORLD = SyntheticData(exchanges_per_day=10, history_days=4, drift=0.0)
SHAPES = read_shapes(POCKET_FOLDER)
RANK, ALPHA = 8, 16.0
PLACEMENT = TopLayers(layers=4, rank=RANK, alpha=ALPHA).on(SHAPES)
RECIPE = Recipe(placement=PLACEMENT, steps=40, batch=8, learning_rate=5e-3, clip=1.0)
TUNING = Tuning(steps=4, batch=4, learning_rate=5e-3, clip=1.0)
RELEASE = Manifest(
    version=0,
    name="pocket",
    path=str(POCKET_FOLDER),
    digest="pocket",
    size_bytes=(POCKET_FOLDER / "model.safetensors").stat().st_size,
    shapes=SHAPES,
    template="pocket",
    max_tokens=128,
)
COMPUTE = Compute(run=lambda job: execute([job])[0])
HOW = WarmStart(single_within=2.0)


@dataclass(frozen=True, slots=True)
class User:
    """A user: whose style is its own, what it said, what it says later."""

    number: int
    own: int
    past: tuple[Exchange, ...]
    later: tuple[Exchange, ...]


def users_at(similarity: float, count: int, *, own_facts: bool = True) -> list[User]:
    """Returns users mixed with the entries' styles in turn; later days are all in their style."""
    mixed = StyledData(
        world=WORLD, similarity=similarity, styles=STYLES, own_facts=own_facts
    ).open()
    own = StyledData(world=WORLD, similarity=1.0, styles=STYLES, own_facts=own_facts).open()
    return [
        User(user, user % len(STYLES), mixed.day(user, 0), own.day(user, 1) + own.day(user, 2))
        for user in range(count)
    ]


def tuned(store: str | None) -> tuple[catalogue.Entry, ...]:
    """Returns the entries, tuned on style corpora or found in a store."""
    corpora = {style.name: style_corpus(style, 120, seed=0) for style in STYLES}
    with tempfile.TemporaryDirectory() as scratch:
        return corpus_entries(corpora, RECIPE, RELEASE, execute, Path(store or scratch))


def explain(
    entries: Sequence[catalogue.Entry],
    summariser: Any,  # noqa: ANN401
    questions: int = 100,
    run: Execute = execute,
) -> catalogue.Catalogue:
    """Returns the catalogue under one summariser."""
    how = catalogue.Explaining(
        questions=plain_questions(questions, seed=1), summariser=summariser, residual=0.02
    )
    return catalogue.explained(entries, how, RELEASE, run)


def encoded(exchanges: Sequence[Exchange]) -> tuple[Any, ...]:
    """Returns exchanges as examples."""
    encoder = Answering(release=RELEASE, new_tokens=1, compute=COMPUTE).encoder
    return tuple(encoder.example(exchange) for exchange in exchanges)


def nll(patches: Sequence[Patch | None], users: Sequence[User]) -> Any:  # noqa: ANN401 - array
    """Returns nats per token of every user's later days."""
    jobs = [
        ScoreJob(release=RELEASE.path, patch=patch, examples=encoded(user.later))
        for patch, user in zip(patches, users, strict=True)
    ]
    found = [cast(ScoreResult, result) for result in execute(jobs)]
    tokens = [sum(example.supervised for example in job.examples) for job in jobs]
    return np.array([sum(r.nll) / n for r, n in zip(found, tokens, strict=True)])


def interval(values: Any) -> list[float]:  # noqa: ANN401 - array
    """Returns mean and 95 % interval over users, normal approximation."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return [round(float(v), 3) for v in (values.mean(), values.mean() - half, values.mean() + half)]
