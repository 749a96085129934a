"""How a start is chosen: by the mean of a user's exchanges, or by the share that reads as an entry.

Entries of `study=xpert` (480 exchanges, 120 steps), users of whom style is all, on a seed that no
study has. Accuracy of both rules, and nats per token of the next day before any step: without a
patch, with the nearest entry as it was tuned, and with the entry of the largest share at several
strengths.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from styled import (
    ALPHA,
    COMPUTE,
    RANK,
    RECIPE,
    RELEASE,
    SIMILARITIES,
    STYLES,
    WORLD,
    User,
    nll,
)

from clients.start.entry_mixture import Mixture, shared_start
from clients.start.nearest_entry import assemble, place_user
from fleettune.catalogue.entry_shares import entry_shares
from fleettune.catalogue.explanation import Cosine
from fleettune.cohort.execute import execute
from fleettune.data.styles import StyledData, plain_questions, style_corpus
from measure import emit
from strategies.catalogue import entries as catalogue
from strategies.catalogue.entry_tuning import corpus_entries

SPREADS = (1.0, 1.5, 2.0)
STRENGTHS = (0.4, 0.6, 0.8, 1.0)
RULE = Mixture(second=2.0, least=0.0)


def shares(store: str | None, seed: int, count: int) -> None:
    """Prints accuracy and initial nats per token of both rules, by similarity."""
    with tempfile.TemporaryDirectory() as scratch:
        found = explained_entries(Path(store or scratch), seed)
    detail: dict[str, Any] = {"users": count, "seed": seed}
    for similarity in SIMILARITIES:
        users = mixed_users(similarity, seed, count)
        detail[f"at_{similarity}"] = compared(found, users)
    emit("accuracy_at_80_by_shares", detail["at_0.8"]["accuracy"]["shares_1.5"], detail)


def explained_entries(store: Path, seed: int) -> catalogue.Catalogue:
    """Returns the entries of the study, explained."""
    recipe = replace(RECIPE, steps=120, learning_rate=2e-3, seed=seed)
    corpora = {style.name: style_corpus(style, 480, seed) for style in STYLES}
    entries = corpus_entries(corpora, recipe, RELEASE, execute, store)
    asked = plain_questions(100, seed=seed + 1)
    how = catalogue.Explaining(questions=asked, residual=0.02)
    return catalogue.explained(entries, how, RELEASE, execute)


def mixed_users(similarity: float, seed: int, count: int) -> list[User]:
    """Returns users who go on as mixed as they were."""
    world = replace(WORLD, seed=seed)
    mixed = StyledData(world=world, similarity=similarity, styles=STYLES, own_facts=False).open()
    return [
        User(user, user % len(STYLES), mixed.day(user, 0), mixed.day(user, 1))
        for user in range(count)
    ]


def compared(found: catalogue.Catalogue, users: list[User]) -> dict[str, Any]:
    """Returns both rules' accuracy and initial nats per token."""
    manifest, patches = found.manifest, [entry.patch for entry in found.entries]
    places = manifest.compared(likes=True)
    placed = [place_user(u.past, manifest, RELEASE, RULE.looking, COMPUTE) for u in users]
    nearest = [int(Cosine().to(one.point, places).argmin()) for one in placed]
    by_spread = {
        spread: [entry_shares(one.points, places, spread) for one in placed] for spread in SPREADS
    }
    own = np.array([user.own for user in users])
    accuracy = {"nearest": float(np.mean(np.array(nearest) == own))}
    for spread, every in by_spread.items():
        chosen = np.array([int(one.argmax()) for one in every])
        accuracy[f"shares_{spread}"] = float(np.mean(chosen == own))
    nats = {
        "no_patch": nll([None] * len(users), users),
        "nearest": nll([patches[entry] for entry in nearest], users),
    }
    for strength in STRENGTHS:
        rule = replace(RULE, strength=strength)
        starts = [shared_start(one, manifest, rule) for one in by_spread[RULE.spread]]
        held = [[patches[entry] for entry in start.entries] for start in starts]
        begun = [assemble(s, p, RANK, ALPHA) for s, p in zip(starts, held, strict=True)]
        nats[f"strength_{strength}"] = nll(begun, users)
    return {
        "accuracy": {name: round(value, 3) for name, value in accuracy.items()},
        "nats_per_token": {name: round(float(own.mean()), 3) for name, own in nats.items()},
    }
