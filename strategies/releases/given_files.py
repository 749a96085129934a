"""Files that a schedule names: models that somebody else made, and text to train a release on.

An external model is one folder per release. Patches and tokens must mean the same on it, so its
shapes and tokenizer are those of the model that everything starts from. The folder is used where it
lies; its digest stands in the manifest.

A corpus is text of the vendor's own that a release is trained on, instead of users' text. One row
is one exchange, in the columns of `fleettune.data.row_file`: ``response``, and ``question``, which
may be empty. ``user_id`` and ``order`` may be missing. The ending of the file's name says whether
it is Parquet or JSON Lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from fleettune.backbone.causal_lm import read_shapes, resolve_folder
from fleettune.data.exchanges import Exchange
from fleettune.data.json_lines import is_json_lines
from fleettune.data.row_file import SUFFIXES, RowFile
from fleettune.records import read_object
from fleettune.releases.model_files import file_digest, weight_files
from fleettune.seeds import Purpose, stream
from strategies.releases.schedule import ReleasePlan, Schedule

_TOKENIZER = ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor")
"""Parts of ``tokenizer.json`` that decide which tokens a text becomes."""


def external_folder(plan: ReleasePlan, source: Path) -> Path:
    """Returns the folder of an external release.

    Args:
        plan: Its plan, of kind ``external``.
        source: Folder of a model of the right shapes and tokenizer.

    Raises:
        ValueError: If it is neither a folder nor to be had from the hub, if it does not hold one
            safetensors file, or if it is another kind of model.
    """
    try:
        folder = resolve_folder(plan.path)
        weight_files(folder)
        own, other = read_shapes(source), read_shapes(folder)
    except ValueError as error:
        told = str(error).replace("model.path", "path")
        raise ValueError(f"release {plan.name}: {told}") from error
    if own != other:
        raise ValueError(
            f"release {plan.name}: the model in {folder} must have the shapes of {source}, "
            f"{own}, got {other}"
        )
    if _tokenizer(folder) != _tokenizer(source):
        raise ValueError(
            f"release {plan.name}: the model in {folder} must have the tokenizer of {source}"
        )
    return folder


def check_given_files(schedule: Schedule, source: Path) -> None:
    """Checks the files that a schedule names.

    Raises:
        ValueError: If an external model cannot follow the one in folder `source`, or if a corpus
            is missing, empty or not as documented.
    """
    for plan in (schedule.initial, *schedule.plans):
        if plan is not None and plan.kind == "external":
            external_folder(plan, source)
        if plan is not None and plan.corpus:
            _read(plan)


def _tokenizer(folder: Path) -> dict[str, Any] | None:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    held = read_object(file.read_bytes(), str(file))
    return {part: held.get(part) for part in _TOKENIZER}


def corpus_rows(plan: ReleasePlan, key: int) -> Sequence[Exchange]:
    """Returns the exchanges of a plan's corpus that its release trains on, in that order.

    Args:
        plan: A plan with a corpus.
        key: Key of the draw of ``plan.conversations`` rows; all of them where there are fewer.

    Raises:
        ValueError: Naming the release and the rule that its file breaks.
    """
    rows = _read(plan)
    drawn = stream(key, Purpose.RELEASE, 3).permutation(rows.height)[: plan.conversations]
    return [
        Exchange(question=question, response=response, day=0, order=order, domain=domain)
        for order, (question, response, domain) in enumerate(rows[drawn.tolist()].iter_rows())
    ]


def corpus_digest(plan: ReleasePlan) -> str:
    """Returns the SHA-256 of a plan's corpus file; empty without one."""
    return file_digest(Path(plan.corpus)) if plan.corpus else ""


def plan_identity(plan: ReleasePlan) -> Mapping[str, Any]:
    """Returns what of a plan is part of its release's key: a corpus by content, not by place."""
    named = {**asdict(plan), "corpus": corpus_digest(plan)}
    # a plan that leans to nothing has the key that it had before plans could lean
    return {key: value for key, value in named.items() if value or key not in ("leans", "about")}


def _read(plan: ReleasePlan) -> pl.DataFrame:
    """Returns question, response and domain of every row."""
    known = [name for name, ends in SUFFIXES.items() if Path(plan.corpus).suffix in ends]
    known = ["jsonl"] if is_json_lines(plan.corpus) else known
    try:
        if not known:
            ends = ", ".join(end for ends in SUFFIXES.values() for end in ends)
            raise ValueError(f"path must end in one of {ends}, got {plan.corpus!r}")
        return RowFile(path=plan.corpus, format=known[0], anonymous=True).read()
    except ValueError as error:
        raise ValueError(f"release {plan.name}: corpus: {error}") from error
