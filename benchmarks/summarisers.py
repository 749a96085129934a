"""The figure ``summarisers`` of `xpert`: what reads the answers, how often that finds the entry.

All answers are the release's own to its users' questions. SmolLM2 and MiniLM take part where they
are on this machine: `make smollm2`, and ``pip install "fleettune[minilm]"``.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from styled import COMPUTE, HOW, RELEASE, explain, users_at

from clients.start.nearest_entry import place_user
from fleettune.backbone.causal_lm import BackboneSource
from fleettune.catalogue.explanation import Cosine, Published, Relative
from fleettune.catalogue.style_vectors import (
    AnswerEmbedding,
    Pair,
    SentenceEmbedding,
    StyleQuestion,
    Stylometry,
    Summariser,
)
from fleettune.catalogue.summariser_models import MINILM_PACKAGE, local_model
from fleettune.cohort.execute import execute
from fleettune.jobs.jobs import EmbedJob, EmbedResult, Job, Result
from measure import emit
from strategies.catalogue import entries as catalogue

SMOLLM2 = BackboneSource(
    name="smollm2_135m", path=".cache/models/smollm2_135m", template="chatml", max_tokens=512
)
QUESTIONS = 50
"""Answered by the base and by every entry, as many as XPerT takes."""


def readers() -> dict[str, Summariser]:
    """Returns the summarisers whose model is on this machine."""
    found: dict[str, Summariser] = {
        "stylometry": Stylometry(),
        "release_embedding": AnswerEmbedding(),
        "release_question": StyleQuestion(),
    }
    if Path(SMOLLM2.path).is_dir():
        found["smollm2_embedding"] = AnswerEmbedding(model=local_model(SMOLLM2))
    if importlib.util.find_spec(MINILM_PACKAGE) is not None:
        found["minilm"] = SentenceEmbedding()
    return found


def summarisers(entries: Sequence[catalogue.Entry], count: int) -> None:
    """Prints how often the nearest entry is the user's own, by what read the answers."""
    detail: dict[str, Any] = {"users": count, "entries": len(entries), "questions": QUESTIONS}
    right: dict[tuple[float, str], list[bool]] = {}
    found = readers()
    first = explain(entries, found["stylometry"], QUESTIONS).manifest
    seen = [
        (similarity, user.own, place_user(user.past, first, RELEASE, HOW, COMPUTE).pairs)
        for similarity in (0.8, 0.9)
        for user in users_at(similarity, count, own_facts=False)
    ]
    for name, summariser in found.items():
        started_s = time.process_time()
        manifest = explain(entries, summariser, QUESTIONS, run=embedded_once).manifest
        for similarity, own, pairs in seen:
            point = manifest.place(summariser.vectors(pairs, RELEASE, COMPUTE))
            for distance in (Cosine(), Relative(), Published()):
                nearest = int(distance.to(point, manifest.compared()).argmin())
                key = similarity, f"{name}_{type(distance).__name__.lower()}"
                right.setdefault(key, []).append(nearest == own)
        detail[name] = asked(summariser, [pairs for _, _, pairs in seen])
        detail[name]["host_cpu_s"] = round(time.process_time() - started_s, 1)
        detail[name]["words"] = list(manifest.basis.words)
    for (similarity, name), hits in right.items():
        detail.setdefault(f"at_{similarity}", {})[name] = round(float(np.mean(hits)), 3)
    emit("summarisers_at_80", detail["at_0.8"]["stylometry_cosine"], detail)


def asked(summariser: Summariser, users: Sequence[Sequence[Pair]]) -> dict[str, Any]:
    """Returns what a model beside the release asks of a device: bytes once, mean FLOP a user."""
    if (model := summariser.model) is None:
        return {}
    read = [[len(text) for text in summariser.reads(pairs, RELEASE)] for pairs in users]
    gflop = np.mean([model.work(lengths).flop for lengths in read]) / 1e9
    return {"download_bytes": model.size_bytes, "gflop_a_user": round(float(gflop), 1)}


def embedded_once(jobs: Sequence[Job]) -> list[Result]:
    """Returns results of jobs; of the many texts of a catalogue equal ones are embedded once."""
    single = [
        replace(job, prompts=tuple(dict.fromkeys(job.prompts)))
        if isinstance(job, EmbedJob)
        else job
        for job in jobs
    ]
    return [_spread(job, found) for job, found in zip(jobs, execute(single), strict=True)]


def _spread(job: Job, found: Result) -> Result:
    if not (isinstance(job, EmbedJob) and isinstance(found, EmbedResult)):
        return found
    place = {text: number for number, text in enumerate(dict.fromkeys(job.prompts))}
    rows = [place[text] for text in job.prompts]
    return EmbedResult(
        vectors=found.vectors[rows], entropy=found.entropy[rows], tokens=found.tokens[rows]
    )
