"""Digests of jobs: what a job's result follows from, as one short text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fleettune.adapters.patch import Patch
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import (
    ChoiceJob,
    EmbedJob,
    GenerateJob,
    Job,
    ProbeJob,
    ScoreJob,
    TuneJob,
)
from fleettune.jobs.output_norm_job import OutputNormJob


def job_digest(job: Job) -> str:
    """Returns the SHA-256 of a job's inputs: equal jobs have equal results."""
    digest = hashlib.sha256(f"{type(job).__name__} {job.release}".encode())
    match job:
        case TuneJob():
            # the trained patch names its release, so the starting one's belongs to the inputs
            digest.update(f"{job.start.release} {job.start.digest()}".encode())
            digest.update(f"{job.learning_rate} {job.clip} {job.frozen_a}".encode())
            digest.update(_batches(job.batches) + repr(job.keep_at).encode())
        case ProbeJob():
            digest.update(_patch(job.probe) + _batches(job.batches))
        case OutputNormJob():
            digest.update(_patch(job.patch) + _examples(job.examples))
        case ScoreJob():
            digest.update(_patch(job.patch) + _examples(job.examples))
        case ChoiceJob():
            digest.update(_patch(job.patch) + repr((job.prompts, job.answers)).encode())
        case EmbedJob():
            digest.update(_patch(job.patch) + repr((job.prompts, job.skip)).encode())
        case GenerateJob():
            digest.update(_patch(job.patch) + repr(job.prompts).encode())
            digest.update(f"{job.new_tokens} {job.stop}".encode())
            digest.update(f"{job.temperature} {job.seeds}".encode())
    return digest.hexdigest()


def _patch(patch: Patch | None) -> bytes:
    return b"none" if patch is None else patch.digest().encode()


def _examples(examples: Sequence[Example]) -> bytes:
    return repr([(example.tokens, example.prompt) for example in examples]).encode()


def _batches(batches: Sequence[Sequence[Example]]) -> bytes:
    return b"".join(map(_examples, batches))
