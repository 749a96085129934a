"""Outlived: which entries of a catalogue hold for a new release.

The reuse-or-retune rule of canaries on text of the server's: an entry holds if the new release with
the old patch predicts what is held out of it no worse than the release before did.
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
class Outlived:
    """The entries of the release before, in view of a new one.

    Attributes:
        entries: All of them, for the release before.
        kept: Those that hold for the new one, for that.
    """

    entries: tuple[Entry, ...] = ()
    kept: tuple[Entry, ...] = ()

    @property
    def whole(self) -> bool:
        """True if there were entries and all of them hold."""
        return bool(self.entries) and len(self.kept) == len(self.entries)

    @property
    def lost(self) -> tuple[str, ...]:
        """Names of the entries that do not hold."""
        held = {entry.name for entry in self.kept}
        return tuple(entry.name for entry in self.entries if entry.name not in held)


def outlive(
    entries: tuple[Entry, ...],
    text: Mapping[str, tuple[Example, ...]],
    releases: tuple[Manifest, Manifest],
    worse: float,
    execute: Execute,
) -> Outlived:
    """Returns the entries with those of them that hold.

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
    kept = tuple(
        replace(entry, patch=replace(entry.patch, release=version))
        for entry, earlier, now in pairs
        if now - earlier <= worse
    )
    return Outlived(entries=entries, kept=kept)


def _nats(job: ScoreJob, result: object) -> float:
    scored = cast(ScoreResult, result)
    return sum(scored.nll) / sum(example.supervised for example in job.examples)
