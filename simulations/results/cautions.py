"""Says what a reader of a run might take for a result and is none, each in one sentence.

Text that the built-in model cannot read, a selection rule that had nothing to drop, an arm that did
what the reference did. Each is found in what the run was given or in its rows, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from clients.policy import DevicePolicy
from clients.selection import Fifo
from fleettune.backbone.causal_lm import BUILT_IN_MODELS
from fleettune.data.exchanges import Population
from fleettune.data.tokens import open_encoder
from strategies.releases.publisher import SourceModel

_MOST_PIECES = 1.7
"""Tokens per word beyond which a built-in model does not know the words: its own worlds take 1.3
and 1.4, a mood journal 3.1, lines of plays 2.7."""
_PEOPLE, _EXCHANGES = 8, 20
_KEYS = ("device", "round")


def caution_text(model: str, source: SourceModel, population: Population) -> str | None:
    """Returns a sentence if a built-in model cannot read the users' text; else None.

    Args:
        model: What ``model.path`` names.
        source: The model.
        population: The users, of whose first exchanges some are read.
    """
    if model not in BUILT_IN_MODELS:
        return None
    encoder = open_encoder(Path(source.path), source.template, source.max_tokens)
    people = range(min(_PEOPLE, population.users))
    texts = [
        text
        for user in people
        for one in population.day(user, 0)[:_EXCHANGES]
        for text in (one.question, one.response)
    ]
    words = sum(len(text.split()) for text in texts)
    pieces = sum(len(encoder.ids(text)) for text in texts) / max(1, words)
    if pieces <= _MOST_PIECES:
        return None
    return (
        f"the built-in model does not know the words of this text: it takes {pieces:.1f} tokens "
        "per word, of its own world 1.3, so its quality says little; take model=smollm2_135m "
        "(make smollm2) or model=hf"
    )


def caution_arms(arms: Mapping[str, DevicePolicy], rows: pl.DataFrame) -> list[str]:
    """Returns a sentence for every arm whose rule had no effect.

    A rule of selection has none if no device ever dropped an exchange. An arm has none if all of
    its rows are those of the reference, and its rule of adaptation if all its decisions are.

    Args:
        arms: The policies by name, the reference first.
        rows: The rows of the run.
    """
    reference = next(iter(arms))
    parts = {name: rows.filter(pl.col("arm") == name).drop("arm").sort(_KEYS) for name in arms}
    told = [_caution_quota(name, one, parts[name]) for name, one in arms.items()]
    told += [_caution_twin(name, reference, arms, parts) for name in arms if name != reference]
    return [sentence for sentence in told if sentence]


def _caution_quota(name: str, policy: DevicePolicy, rows: pl.DataFrame) -> str:
    if isinstance(policy.selection, Fifo) or not rows.height:
        return ""
    per_device = rows.group_by("device").agg(
        pl.col("arrived").sum(), pl.col("buffer_exchanges").sort_by("round").last()
    )
    if (per_device["buffer_exchanges"] < per_device["arrived"]).any():
        return ""
    most, quota = rows["buffer_bytes"].max(), policy.quota.buffer_bytes
    return (
        f"selection of arm {name} had nothing to drop: no device held more than {most:,} of "
        f"storage.buffer_bytes={quota:,} bytes, so any rule keeps the same; lower it, or run more "
        "nights"
    )


def _caution_twin(
    name: str,
    reference: str,
    arms: Mapping[str, DevicePolicy],
    parts: Mapping[str, pl.DataFrame],
) -> str:
    own, other = parts[name], parts[reference]
    if own.height and own.equals(other):
        return f"arm {name} changed nothing: all its {own.height:,} rows are those of {reference}"
    is_other_rule = arms[name].adaptation != arms[reference].adaptation
    decided = [*_KEYS, "release", "decision"]
    if own.height and is_other_rule and own.select(decided).equals(other.select(decided)):
        return (
            f"adaptation of arm {name} came to the decision of {reference} on all of "
            f"{own.height:,} device-nights, so no difference between them is one of that rule"
        )
    return ""
