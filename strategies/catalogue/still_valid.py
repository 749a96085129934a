"""Which entries of a catalogue are still valid for a new release.

A catalogue entry is reused on a new release if its loss on held-out text rises by at most `worse`
nats per token; else it is made again. This is the canary rule of devices, on text of the server's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from fleettune.cohort.execute import Execute
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import ScoreJob, ScoreResult
from fleettune.releases.manifest import Manifest
from strategies.catalogue.entries import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryValidity:
    """The entries of the release before, in view of a new one.

    Attributes:
        entries: All of them, for the release before.
        valid: Those that are reused, for the new one.
    """

    entries: tuple[Entry, ...] = ()
    valid: tuple[Entry, ...] = ()

    @property
    def whole(self) -> bool:
        """True if there were entries and all of them are still valid."""
        return bool(self.entries) and len(self.valid) == len(self.entries)

    @property
    def lost(self) -> tuple[str, ...]:
        """Names of the entries that are not."""
        held = {entry.name for entry in self.valid}
        return tuple(entry.name for entry in self.entries if entry.name not in held)


def check_entries(
    entries: tuple[Entry, ...],
    text: Mapping[str, tuple[Example, ...]],
    releases: tuple[Manifest, Manifest],
    worse: float,
    execute: Execute,
) -> EntryValidity:
    """Returns the entries with those of them that are still valid.

    Args:
        entries: Of the release before.
        text: What is held out, by entry.
        releases: The release before, and the new one.
        worse: Nats per token by which the new one may predict it worse.
        execute: Runs jobs.
    """
    jobs = [
        ScoreJob(release=at.path, patch=entry.patch, examples=text[entry.name])
        for at in releases
        for entry in entries
    ]
    nats = [_nats(job, result) for job, result in zip(jobs, execute(jobs), strict=True)]
    pairs = zip(entries, nats[: len(entries)], nats[len(entries) :], strict=True)
    version = releases[1].version
    valid = tuple(
        replace(entry, patch=replace(entry.patch, release=version))
        for entry, earlier, now in pairs
        if now - earlier <= worse
    )
    return EntryValidity(entries=entries, valid=valid)


def _nats(job: ScoreJob, result: object) -> float:
    scored = cast(ScoreResult, result)
    return sum(scored.nll) / sum(example.supervised for example in job.examples)
