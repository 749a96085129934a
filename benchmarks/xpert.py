"""Warm starts: is the right entry of a catalogue found, what does it save, what does it cost?

    python benchmarks/xpert.py [--quick] [figure ...]

The built-in model, 32 entries (two levels of expertise, four of informativeness, four of tone),
users with facts of their own who are mixed with one entry's style. ``accuracy`` is the share of
users whose nearest entry is theirs, by similarity, summariser and distance, beside exhaustive
scoring; _like and _any compare with plain answers in the manifest, to like and to any questions,
instead of the release's own to the user's questions. ``words`` says how entries read and on which
side of which axis their strongest word lies. ``steps`` compares tunes from the selected entry, from
a wrong one and from scratch on later days. ``merge`` compares merged starts of users between two
styles with the better single one. ``summarisers`` is the accuracy by what reads the answers:
counts, the release, SmolLM2 and MiniLM where they are here; users have no facts of their own.
``explaining`` counts right words by where they come from and how vectors are decomposed.
``shares`` compares a choice by the mean of exchanges with one by shares of them, on ``--seed``.
``cost`` prices a choice by the catalogue's size on one phone (simulated joules and seconds).
"""

from __future__ import annotations

from simulations.engines.environment import prepare, quieten

prepare()

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from explaining import explaining
from fleet import HARDWARE
from shares import shares
from starts import merge, steps
from styled import (
    COMPUTE,
    HOW,
    RELEASE,
    SHAPES,
    SIMILARITIES,
    STYLES,
    WORLD,
    encoded,
    explain,
    tuned,
    users_at,
)
from summarisers import summarisers

from clients.start.nearest_entry import (
    download_work,
    place_user,
    selection_work,
)
from clients.start.rivals import Picked, pick_by_halving, pick_exhaustively, rival_work
from clients.work.facts import Facts
from fleettune.catalogue.explanation import Cosine, Published, Relative, explained, in_words
from fleettune.catalogue.manifest import encode_manifest
from fleettune.catalogue.style_vectors import AnswerEmbedding, Stylometry
from fleettune.cost.energy import price
from fleettune.cost.hardware import load_hardware
from fleettune.cost.pricing import PricedModel
from fleettune.cost.work import backward_work
from fleettune.cost.workload import Entry as WorkEntry
from fleettune.cost.workload import Workload
from measure import emit
from simulations.studies.explained_words import is_right
from strategies.catalogue import entries as catalogue

COMPARED = {"own": "", "like": "_like", "any": "_any"}
"""What a user's answers are compared with, and how figures of it end."""


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
            for answers, suffix in COMPARED.items():
                how = replace(HOW, answers=answers)
                first = catalogues["stylometry"].manifest
                pairs = place_user(user.past, first, RELEASE, how, COMPUTE).pairs
                for name, own in catalogues.items():
                    manifest = own.manifest
                    vectors = manifest.summariser.vectors(pairs, RELEASE, COMPUTE)
                    likes = answers == "like"
                    point = manifest.place(vectors, likes=likes)
                    for distance in (Cosine(), Relative(), Published()):
                        nearest = distance.to(point, manifest.compared(likes=likes)).argmin()
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
    emit("accuracy_at_80", detail["at_0.8"]["stylometry_cosine"], detail)


def words(entries: Sequence[catalogue.Entry]) -> None:
    """Prints the share of entries whose strongest word lies on the right side of its axis."""
    manifest = explain(entries, Stylometry()).manifest
    right: list[bool] = []
    reads: dict[str, str] = {}
    basis = manifest.basis
    for style, place in zip(STYLES, manifest.coordinates, strict=True):
        terms = explained(basis.words, basis.opposites, place, manifest.middle)
        reads[style.name] = in_words(terms)
        right.append(is_right({"entry": style.name, "strongest": terms[0].word}))
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
        priced=PricedModel(model="llama-3.2-1b", tokens_ratio=1.0),
    )
    examples = encoded(user.past)
    detail: dict[str, Any] = {"phone": "oneplus_12r", "priced_as": "llama-3.2-1b"}
    for summariser in (Stylometry(), AnswerEmbedding()):
        full = explain(entries, summariser)
        for answers, suffix in COMPARED.items():
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
        coordinates_beside=full.manifest.coordinates_beside[chosen],
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
    parser.add_argument("--store", help="folder that keeps tuned entries for another call")
    parser.add_argument("--seed", type=int, default=31, help="of entries and users of shares")
    parser.add_argument("figures", nargs="*", help="names of figures; all by default")
    asked = parser.parse_intermixed_args()
    quieten()
    torch.set_num_threads(1)
    quick = asked.quick
    entries = tuned(asked.store)
    figures: dict[str, Callable[[], None]] = {
        "words": lambda: words(entries),
        "explaining": lambda: explaining(entries, 8 if quick else 40),
        "accuracy": lambda: accuracy(entries, *((32, 2) if quick else (128, 16))),
        "steps": lambda: steps(entries, *((16, 10) if quick else (64, 16))),
        "merge": lambda: merge(entries, 24 if quick else 96),
        "summarisers": lambda: summarisers(entries, 8 if quick else 32),
        "shares": lambda: shares(asked.store, asked.seed, 32 if quick else 128),
        "cost": lambda: cost(entries),
    }
    for name in asked.figures or figures:
        figures[name]()


if __name__ == "__main__":
    main()
