"""The cohort: many devices' jobs as few batched passes, K = 1 included.

Jobs of one kind and release run together. Equal jobs, by digest of their inputs, run once, and
every device that asked is billed for its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fleettune.backbone.causal_lm import Backbone, load_backbone
from fleettune.backbone.processor import CPU, REFERENCE, place_tensors_on
from fleettune.cohort.probe import measure_cohort, probe_cohort
from fleettune.cohort.score import (
    choose_cohort,
    embed_cohort,
    generate_cohort,
    score_cohort,
)
from fleettune.cohort.tune import tune_cohort, tune_tied_cohort
from fleettune.jobs.jobs import (
    ChoiceJob,
    EmbedJob,
    GenerateJob,
    Job,
    OutputNormJob,
    ProbeJob,
    Result,
    ScoreJob,
    TuneJob,
    TuneResult,
    job_digest,
)

TOKENS_PER_STEP = 1536
"""Tokens in one step of a pass: beyond that a larger pass is hardly faster (docs/LOG.md)."""
CUDA_TOKENS_PER_STEP = 24_576
"""The same on a GPU: 512 devices of one example of 48 tokens. A guess, never measured."""
LEAST_DEVICES = 4
"""Devices that share a pass even if all jobs together would fill a single one."""


def _tune(backbone: Backbone, jobs: Sequence[TuneJob]) -> Sequence[TuneResult]:
    """Tunes jobs that all have tied sites, or none of which has any (see `_group`)."""
    tied = any(job.start.ties for job in jobs)
    return tune_tied_cohort(backbone, jobs) if tied else tune_cohort(backbone, jobs)


_KERNELS: dict[type, Callable[[Backbone, Sequence[Any]], Sequence[Result]]] = {
    TuneJob: _tune,
    ProbeJob: probe_cohort,
    ScoreJob: score_cohort,
    OutputNormJob: measure_cohort,
    ChoiceJob: choose_cohort,
    EmbedJob: embed_cohort,
    GenerateJob: generate_cohort,
}


_loaded: dict[tuple[str, str, str], Backbone] = {}


def _model(release: str, precision: str, processor: str) -> Backbone:
    """Returns the model of a folder; only the last one asked for stays in memory."""
    key = (release, precision, processor)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_backbone(Path(release), precision, processor)
    return _loaded[key]


@dataclass(frozen=True, slots=True)
class _Group:
    """What jobs must share to run in one pass."""

    kind: type
    release: str
    patched: bool
    shared: tuple[object, ...]


def _group(job: Job) -> _Group:
    if isinstance(job, TuneJob | ProbeJob):
        # a pass goes down to its lowest adapted layer, so a shallow device has no deep neighbours
        start = job.start if isinstance(job, TuneJob) else job.probe
        cut = min(site.layer for site in start.ranks)
        return _Group(type(job), job.release, patched=True, shared=(cut, bool(start.ties)))
    shared: tuple[object, ...] = ()
    if isinstance(job, ChoiceJob):
        shared = job.answers
    elif isinstance(job, GenerateJob):
        shared = (job.new_tokens, job.stop, job.temperature)
    elif isinstance(job, EmbedJob):
        shared = (job.skip,)
    return _Group(type(job), job.release, job.patch is not None, shared)


def _devices_per_pass(jobs: Sequence[Job], processor: str) -> int:
    """Returns how many jobs share a pass: to saturation, but halves at most, for two workers."""
    tokens = TOKENS_PER_STEP if processor == CPU else CUDA_TOKENS_PER_STEP
    full = max(1, tokens // max(map(_tokens_per_step, jobs)))
    return min(full, max(LEAST_DEVICES, -(-len(jobs) // 2)))


def _tokens_per_step(job: Job) -> int:
    match job:
        case TuneJob() | ProbeJob():
            longest = max(len(example.tokens) for batch in job.batches for example in batch)
            return longest * max(map(len, job.batches))
        case ScoreJob() | OutputNormJob():
            return sum(len(example.tokens) for example in job.examples)
        case GenerateJob():
            return len(job.prompts)
        case ChoiceJob() | EmbedJob():
            return sum(map(len, job.prompts))


@dataclass(frozen=True, slots=True)
class JobBatch:
    """Jobs that run in one pass over one model, and how and where it runs.

    Attributes:
        kind: Type of the jobs.
        release: Folder of the backbone.
        jobs: The jobs.
        precision: ``reference`` or ``fast``.
        processor: ``cpu`` or ``cuda``.
    """

    kind: type
    release: str
    jobs: tuple[Job, ...]
    precision: str = REFERENCE
    processor: str = CPU


RunBatches = Callable[[Sequence[JobBatch]], Iterable[Sequence[Result]]]


def run_batch(batch: JobBatch) -> Sequence[Result]:
    """Returns the results of one batch, in the order of its jobs."""
    model = _model(batch.release, batch.precision, batch.processor)
    with place_tensors_on(model.device):
        return _KERNELS[batch.kind](model, batch.jobs)


def run_batches_here(batches: Sequence[JobBatch]) -> Iterable[Sequence[Result]]:
    """Runs batches one after the other in this process."""
    return map(run_batch, batches)


def execute(
    jobs: Sequence[Job],
    run_batches: RunBatches = run_batches_here,
    precision: str = REFERENCE,
    processor: str = CPU,
) -> list[Result]:
    """Returns the results of the jobs, in their order.

    How jobs are cut into batches depends on them and the kind of processor, never on who runs them.
    """
    digests = [job_digest(job) for job in jobs]
    distinct = dict(zip(digests, jobs, strict=True))
    groups: dict[_Group, list[str]] = {}
    for digest, job in distinct.items():
        groups.setdefault(_group(job), []).append(digest)
    members: list[list[str]] = []
    batches: list[JobBatch] = []
    # jobs of one release run together, so that few backbones are in memory at a time
    for group in sorted(groups, key=lambda item: (item.release, item.kind.__name__)):
        size = _devices_per_pass([distinct[digest] for digest in groups[group]], processor)
        for start in range(0, len(groups[group]), size):
            members.append(groups[group][start : start + size])
            chosen = tuple(distinct[digest] for digest in members[-1])
            batches.append(JobBatch(group.kind, group.release, chosen, precision, processor))
    results: dict[str, Result] = {}
    for digests_of_batch, found in zip(members, run_batches(batches), strict=True):
        results.update(zip(digests_of_batch, found, strict=True))
    return [results[digest] for digest in digests]


Execute = Callable[[Sequence[Job]], Sequence[Result]]


def execute_here(jobs: Sequence[Job]) -> Sequence[Result]:
    """Returns the results of jobs run in this process, on one thread whatever the machine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return execute(jobs)
    finally:
        torch.set_num_threads(threads)
