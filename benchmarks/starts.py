"""What a start saves: tunes from the selected, a wrong and no entry, and from merged ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from styled import (
    ALPHA,
    COMPUTE,
    HOW,
    PLACEMENT,
    RANK,
    RELEASE,
    SHAPES,
    STYLES,
    TUNING,
    WORLD,
    User,
    encoded,
    explain,
    interval,
    nll,
    users_at,
)

from clients.start.nearest_entry import assemble, choose_start, place_user
from fleettune.adapters.patch import Patch, new_patch
from fleettune.catalogue.style_vectors import Stylometry
from fleettune.cohort.execute import execute
from fleettune.data.styles import StyledData
from fleettune.jobs.jobs import TuneJob, TuneResult
from fleettune.seeds import Purpose, stream
from measure import emit
from strategies.catalogue import entries as catalogue


def curve(starts: Sequence[Patch], users: Sequence[User], rounds: int) -> list[Any]:
    """Returns nats per token of every user before tuning and after every `TUNING.steps` steps."""
    patches = list(starts)
    found = [nll(patches, users)]
    for number in range(rounds):
        jobs: list[TuneJob] = []
        for patch, user in zip(patches, users, strict=True):
            rng = stream(0, Purpose.TUNING, user.number, number)
            batches = TUNING.batches(encoded(user.past), rng)
            rate = TUNING.learning_rate
            jobs.append(
                TuneJob(
                    release=RELEASE.path, start=patch, batches=batches, learning_rate=rate, clip=1.0
                )
            )
        # AdamW's moments begin anew every few steps, for every start alike
        patches = [cast(TuneResult, result).patch for result in execute(jobs)]
        found.append(nll(patches, users))
    return found


CASES = ((0.5, True), (0.9, True), (0.9, False))
"""Similarity, and whether users have facts of their own beside their style."""


def steps(
    entries: Sequence[catalogue.Entry],
    count: int,
    rounds: int,
    cases: Sequence[tuple[float, bool]] = CASES,
) -> None:
    """Prints after how many steps each start reaches scratch's quality at its best."""
    manifest = explain(entries, Stylometry()).manifest
    detail: dict[str, Any] = {"users": count, "steps_per_point": TUNING.steps}
    saved = {}
    for similarity, own_facts in cases:
        users = users_at(similarity, count, own_facts=own_facts)
        scratch = [
            new_patch(PLACEMENT, SHAPES, 0, stream(0, Purpose.ADAPTER, user.number, 0))
            for user in users
        ]
        chosen: list[Patch] = []
        for user in users:
            point = place_user(user.past, manifest, RELEASE, HOW, COMPUTE).point
            start = choose_start(point, manifest, HOW)
            held = [entries[entry].patch for entry in start.entries]
            found = assemble(start, held, RANK, ALPHA)
            chosen.append(scratch[user.number] if found is None else found)
        # the entry farthest on every axis
        wrong = [
            entries[(user.own + len(entries) // 2 + 10) % len(entries)].patch for user in users
        ]
        right = [entries[user.own].patch for user in users]
        starts = {"scratch": scratch, "selected": chosen, "true_entry": right, "wrong_entry": wrong}
        curves = {name: curve(own, users, rounds) for name, own in starts.items()}
        # small data is overfitted away: the best point is what early stopping would keep
        best = {name: np.stack(own).min(axis=0) for name, own in curves.items()}
        target = best["scratch"]
        reached = {name: first_at_most(own, target) for name, own in curves.items()}
        detail[f"at_{similarity}_{'facts' if own_facts else 'style_only'}"] = {
            "nats_per_token": {
                name: [round(float(point.mean()), 3) for point in own]
                for name, own in curves.items()
            },
            "mean_steps_to_scratch_best": {
                name: round(float(own.mean()), 1) for name, own in reached.items()
            },
            "best_minus_scratch": {name: interval(own - target) for name, own in best.items()},
            "never_reached": {name: int((own > target + 1e-9).sum()) for name, own in best.items()},
            "initial_minus_scratch": {
                name: interval(own[0] - curves["scratch"][0]) for name, own in curves.items()
            },
        }
        saved[similarity, own_facts] = reached["scratch"].mean() / max(
            float(reached["selected"].mean()), 1.0
        )
    emit("steps_saved_at_90", round(float(saved[0.9, False]), 2), detail)


def merge(entries: Sequence[catalogue.Entry], count: int) -> None:
    """Prints initial nats per token of users between two styles: merged against single starts."""
    manifest = explain(entries, Stylometry()).manifest
    rng = stream(0, Purpose.SAMPLING, 1)
    drawn = [tuple(map(int, rng.permutation(len(STYLES))[:2])) for _ in range(count)]
    users: list[User] = []
    for number, pair in enumerate(drawn):
        styles = tuple(STYLES[place] for place in pair)
        # with two styles and no similarity each exchange is in one of them, drawn evenly
        mixed = StyledData(world=WORLD, similarity=0.0, styles=styles).open()
        users.append(User(number, pair[0], mixed.day(number, 0), mixed.day(number, 1)))
    patches: dict[str, list[Patch | None]] = {
        "merged": [],
        "nearest": [],
        "first": [],
        "second": [],
    }
    patches["scratch"] = [None] * count
    for user, pair in zip(users, drawn, strict=True):
        point = place_user(user.past, manifest, RELEASE, HOW, COMPUTE).point
        single = choose_start(point, manifest, HOW)
        both = choose_start(point, manifest, replace(HOW, single_within=0.0, merged_within=2.0))
        held = [entries[entry].patch for entry in both.entries]
        patches["merged"].append(assemble(both, held, RANK, ALPHA))
        patches["nearest"].append(entries[single.entries[0]].patch)
        patches["first"].append(entries[pair[0]].patch)
        patches["second"].append(entries[pair[1]].patch)
    losses = {name: nll(own, users) for name, own in patches.items()}
    best = np.minimum(losses["first"], losses["second"])
    detail = {
        "users": count,
        "nats_per_token": {name: round(float(own.mean()), 3) for name, own in losses.items()},
        "merged_minus_nearest": interval(losses["merged"] - losses["nearest"]),
        "merged_minus_better_of_its_two": interval(losses["merged"] - best),
    }
    emit("merged_minus_nearest", detail["merged_minus_nearest"][0], detail)


def first_at_most(points: Sequence[Any], target: Any) -> Any:  # noqa: ANN401 - arrays
    """Returns per user the steps until its loss is at most the target; all of them if never."""
    below = np.stack(points) <= target + 1e-9
    last = len(points) - 1
    first = np.where(below.any(axis=0), below.argmax(axis=0), last)
    return first * TUNING.steps
