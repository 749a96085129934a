"""Warm starts: is the right entry of a catalogue found, what does it save, what does it cost?

    python benchmarks/xpert.py [--quick] [figure ...]

The built-in model, 32 entries (two levels of expertise, four of informativeness, four of tone),
users with facts of their own who are mixed with one entry's style. ``accuracy`` is the share of
users whose nearest entry is theirs, by similarity, summariser and distance, beside exhaustive
scoring; _shipped compares with plain answers in the manifest instead of the release's own to the
user's questions. ``words`` says how entries read and on which side of which axis their strongest
word lies. ``steps`` compares tunes from the selected entry, from a wrong one and from scratch on
later days. ``merge`` compares merged starts of users between two styles with the better single one.
``cost`` prices a choice by the catalogue's size on one phone (simulated joules and seconds).
"""

from __future__ import annotations

from simulations.environment import prepare, quieten

prepare()

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from fleet import HARDWARE

from clients.facts import Facts
from clients.placement import TopLayers
from clients.start_rivals import Picked, pick_by_halving, pick_exhaustively, rival_work
from clients.tuning import Tuning
from clients.warm_start import (
    WarmStart,
    assemble,
    choose_start,
    download_work,
    place_user,
    selection_work,
)
from fleettune.adapters import Patch, new_patch
from fleettune.backbone import POCKET_FOLDER, read_shapes
from fleettune.catalogue_manifest import encode_manifest
from fleettune.cohort import execute
from fleettune.compute import Compute, ScoreJob, ScoreResult, TuneJob, TuneResult
from fleettune.energy import price
from fleettune.exchanges import Exchange
from fleettune.explanation import Published, Relative, explained, in_words
from fleettune.hardware import load_hardware
from fleettune.personas import SyntheticData
from fleettune.pricing import PricedAs
from fleettune.releases import Manifest
from fleettune.seeds import Purpose, stream
from fleettune.styles import StyledData, plain_questions, style_corpus, style_grid
from fleettune.summaries import AnswerEmbedding, Stylometry
from fleettune.work import backward_work
from fleettune.workload import Entry as WorkEntry
from fleettune.workload import Workload
from lines import emit
from strategies import catalogue
from strategies.catalogue_tuning import Recipe, corpus_entries

STYLES = style_grid((0, 3))
SIMILARITIES = (0.3, 0.5, 0.7, 0.8, 0.9)
WORLD = SyntheticData(exchanges_per_day=10, history_days=4, drift=0.0)
SHAPES = read_shapes(POCKET_FOLDER)
RANK, ALPHA = 8, 16.0
PLACEMENT = TopLayers(layers=4, rank=RANK, alpha=ALPHA).on(SHAPES)
RECIPE = Recipe(placement=PLACEMENT, steps=40, batch=8, learning_rate=5e-3, clip=1.0)
TUNING = Tuning(steps=8, batch=4, learning_rate=5e-3, clip=1.0)
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
AXES = {
    **dict.fromkeys(("lengthy", "circumstantial", "adding"), "informativeness"),
    **dict.fromkeys(("terse", "bare", "unadorned"), "informativeness"),
    **dict.fromkeys(("learned", "long-worded", "simple", "short-worded"), "expertise"),
    **dict.fromkeys(("emphatic", "pausing", "segmented", "naming"), "tone"),
    **dict.fromkeys(("flat", "unbroken", "single-sentenced", "nameless"), "tone"),
}
"""Which axis a word is read as being about; used to judge explanations, never to make them."""
LESS = ("terse", "bare", "unadorned", "simple", "short-worded", "flat", "unbroken", "nameless")


@dataclass(frozen=True, slots=True)
class User:
    """A user: whose style is its own, what it said, what it says later."""

    number: int
    own: int
    past: tuple[Exchange, ...]
    later: tuple[Exchange, ...]


def users_at(similarity: float, count: int) -> list[User]:
    """Returns users mixed with the entries' styles in turn; later days are all in their style."""
    mixed = StyledData(world=WORLD, similarity=similarity, styles=STYLES).open()
    own = StyledData(world=WORLD, similarity=1.0, styles=STYLES).open()
    return [
        User(user, user % len(STYLES), mixed.day(user, 0), own.day(user, 1) + own.day(user, 2))
        for user in range(count)
    ]


def tuned() -> tuple[catalogue.Entry, ...]:
    """Returns the entries, tuned on style corpora."""
    corpora = {style.name: style_corpus(style, 120, seed=0) for style in STYLES}
    with tempfile.TemporaryDirectory() as store:
        return corpus_entries(corpora, RECIPE, RELEASE, execute, Path(store))


def explain(entries: Sequence[catalogue.Entry], summariser: Any) -> catalogue.Catalogue:  # noqa: ANN401
    """Returns the catalogue under one summariser."""
    how = catalogue.Explaining(
        questions=plain_questions(50, seed=1), summariser=summariser, residual=0.02
    )
    return catalogue.explained(entries, how, RELEASE, execute)


def accuracy(entries: Sequence[catalogue.Entry], count: int, tried: int) -> None:
    """Prints how often the nearest entry is the user's own."""
    catalogues = {
        "stylometry": explain(entries, Stylometry()),
        "embedding": explain(entries, AnswerEmbedding()),
    }
    detail: dict[str, Any] = {
        "users": count,
        "exhaustive_users": tried,
        "entries": len(entries),
        "chance": 1 / len(entries),
        "words": {name: list(c.manifest.basis.words) for name, c in catalogues.items()},
    }
    for similarity in SIMILARITIES:
        right: dict[str, list[bool]] = {}
        for user in users_at(similarity, count):
            for name, own in catalogues.items():
                for answers, suffix in ((True, ""), (False, "_shipped")):
                    how = replace(HOW, answers=answers)
                    point = place_user(user.past, own.manifest, RELEASE, how, COMPUTE).point
                    for distance in (Relative(), Published()):
                        nearest = distance.to(point, own.manifest.coordinates).argmin()
                        key = f"{name}_{type(distance).__name__.lower()}{suffix}"
                        right.setdefault(key, []).append(bool(nearest == user.own))
            if user.number < tried:
                examples = encoded(user.past)
                patches = [entry.patch for entry in entries]
                picked = pick_exhaustively(examples, patches, RELEASE.path, COMPUTE)
                right.setdefault("exhaustive", []).append(picked.entry == user.own)
        detail[f"at_{similarity}"] = {
            name: round(float(np.mean(found)), 3) for name, found in right.items()
        }
    emit("accuracy_at_80", detail["at_0.8"]["stylometry_relative"], detail)


def words(entries: Sequence[catalogue.Entry]) -> None:
    """Prints the share of entries whose strongest word lies on the right side of its axis."""
    manifest = explain(entries, Stylometry()).manifest
    right: list[bool] = []
    reads: dict[str, str] = {}
    basis = manifest.basis
    for style, place in zip(STYLES, manifest.coordinates, strict=True):
        terms = explained(basis.words, basis.opposites, place, manifest.middle)
        reads[style.name] = in_words(terms)
        axis = AXES.get(terms[0].word)
        high = axis is not None and getattr(style, axis) >= 2
        right.append(axis is not None and high != (terms[0].word in LESS))
    levels = {
        axis: level_distances(manifest.coordinates, axis) for axis in ("informativeness", "tone")
    }
    detail = {"words": list(basis.words), "reads": reads, "levels_1_to": levels}
    detail["manifest_bytes"] = len(encode_manifest(manifest))
    emit("strongest_word_right", round(float(np.mean(right)), 3), detail)


def level_distances(places: Any, axis: str) -> list[float]:  # noqa: ANN401 - coordinates
    """Returns the mean L1 distance from the lowest level of an axis to the three above it."""
    by_rest: dict[tuple[int, ...], dict[int, Any]] = {}
    for style, place in zip(STYLES, places, strict=True):
        levels = (style.expertise, style.informativeness, style.tone)
        which = ("expertise", "informativeness", "tone").index(axis)
        rest = (*levels[:which], *levels[which + 1 :])
        by_rest.setdefault(rest, {})[levels[which]] = place
    apart = [[np.abs(own[n] - own[0]).sum() for n in (1, 2, 3)] for own in by_rest.values()]
    return [round(float(value), 3) for value in np.mean(apart, axis=0)]


def encoded(exchanges: Sequence[Exchange]) -> tuple[Any, ...]:
    """Returns exchanges as examples."""
    encoder = catalogue.Answering(release=RELEASE, new_tokens=1, compute=COMPUTE).encoder
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


def steps(entries: Sequence[catalogue.Entry], count: int, rounds: int) -> None:
    """Prints after how many steps each start reaches scratch's final quality."""
    manifest = explain(entries, Stylometry()).manifest
    detail: dict[str, Any] = {"users": count, "steps_per_point": TUNING.steps}
    saved = {}
    for similarity in (0.5, 0.9):
        users = users_at(similarity, count)
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
        target = curves["scratch"][-1]
        reached = {name: first_at_most(own, target) for name, own in curves.items()}
        detail[f"at_{similarity}"] = {
            "nats_per_token": {
                name: [round(float(point.mean()), 3) for point in own]
                for name, own in curves.items()
            },
            "mean_steps_to_scratch_final": {
                name: round(float(own.mean()), 1) for name, own in reached.items()
            },
            "final_minus_scratch": {
                name: interval(own[-1] - target) for name, own in curves.items()
            },
            "initial_minus_scratch": {
                name: interval(own[0] - curves["scratch"][0]) for name, own in curves.items()
            },
        }
        saved[similarity] = reached["scratch"].mean() / max(reached["selected"].mean(), 1.0)
    emit("steps_saved_at_90", round(float(saved[0.9]), 2), detail)


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


def interval(values: Any) -> list[float]:  # noqa: ANN401 - array
    """Returns mean and 95 % interval over users, normal approximation."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return [round(float(v), 3) for v in (values.mean(), values.mean() - half, values.mean() + half)]


def cost(entries: Sequence[catalogue.Entry]) -> None:
    """Prints what a choice costs on one phone, by the size of the catalogue (simulated)."""
    profile = load_hardware(HARDWARE)["oneplus_12r"]
    user = users_at(0.8, 1)[0]
    facts = Facts(
        device=0,
        user=0,
        seed=0,
        profile=profile,
        population=WORLD.open(),
        priced=PricedAs(model="llama-3.2-1b", tokens_ratio=1.0),
    )
    examples = encoded(user.past)
    detail: dict[str, Any] = {"phone": "oneplus_12r", "priced_as": "llama-3.2-1b"}
    for summariser in (Stylometry(), AnswerEmbedding()):
        full = explain(entries, summariser)
        for answers, suffix in ((True, ""), (False, "_shipped")):
            how = replace(HOW, answers=answers)
            placed = place_user(user.past, full.manifest, RELEASE, how, COMPUTE)
            name = type(summariser).__name__.lower() + suffix
            for size in (4, 8, 16, 32, 64):
                manifest = sized(full, size)
                data = encode_manifest(manifest)
                asked = selection_work(facts, RELEASE, manifest, placed, len(data))
                asked += download_work(facts, RELEASE, [entries[0].patch])
                detail.setdefault(name, {})[size] = {"manifest": len(data)} | priced(facts, asked)
    for size in (4, 8, 16, 32, 64):
        patches = [entries[n % len(entries)].patch for n in range(size)]
        every = Picked(entry=0, scored=(len(examples),) * size)
        halved = pick_by_halving(examples, patches, RELEASE.path, COMPUTE)
        for name, picked in (("exhaustive", every), ("halving", halved)):
            asked = rival_work(facts, RELEASE, picked, patches, examples)
            detail.setdefault(name, {})[size] = priced(facts, asked)
    ranks = entries[0].patch.ranks
    lengths = [len(example.tokens) for example in examples[:4]]
    shapes = facts.priced.shapes(SHAPES)
    step = backward_work(shapes, lengths, sum(lengths), facts.priced.ranks(SHAPES, ranks), 2.0, 1)
    detail["backward_gflop_of_a_step_of_4"] = round(step.flop / 1e9, 1)
    own = detail["stylometry"]
    emit("selection_cost_64_over_4", round(own[64]["energy_j"] / own[4]["energy_j"], 3), detail)


def sized(full: catalogue.Catalogue, size: int) -> Any:  # noqa: ANN401 - a manifest
    """Returns the manifest with another number of entries, some of them listed twice."""
    chosen = [number % len(full.entries) for number in range(size)]
    return replace(
        full.manifest,
        entries=tuple(full.manifest.entries[number] for number in chosen),
        coordinates=full.manifest.coordinates[chosen],
    )


def priced(facts: Facts, entries: Sequence[WorkEntry]) -> dict[str, float]:
    """Returns simulated seconds, joules above idle and bytes down."""
    workload = Workload()
    for entry in entries:
        workload = workload.plus(*entry)
    total = price(workload, facts.at).total()
    return {
        "time_s": round(total.time_s, 2),
        "energy_j": round(total.energy_j, 2),
        "down_bytes": round(total.down_bytes),
    }


def main() -> None:
    """Measures the figures asked for, all by default."""
    parser = argparse.ArgumentParser(description="Warm starts from a catalogue.")
    parser.add_argument("--quick", action="store_true", help="fewer users")
    parser.add_argument("figures", nargs="*", help="names of figures; all by default")
    asked = parser.parse_intermixed_args()
    quieten()
    torch.set_num_threads(1)
    quick = asked.quick
    entries = tuned()
    figures: dict[str, Callable[[], None]] = {
        "words": lambda: words(entries),
        "accuracy": lambda: accuracy(entries, *((32, 8) if quick else (128, 32))),
        "steps": lambda: steps(entries, *((16, 6) if quick else (64, 8))),
        "merge": lambda: merge(entries, 24 if quick else 96),
        "cost": lambda: cost(entries),
    }
    for name in asked.figures or figures:
        figures[name]()


if __name__ == "__main__":
    main()
