"""Publishing: releases become manifests, with drift since all earlier versions and payloads."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fleettune.adapters.patch import Patch
from fleettune.adapters.patch_files import fetch_patch, keep_patch
from fleettune.backbone.causal_lm import read_shapes
from fleettune.data.tokens import open_encoder
from fleettune.releases.manifest import Drift, Manifest, ReleaseDelta, drift_between
from fleettune.releases.model_files import weights_bytes
from fleettune.shapes import Shapes
from strategies.releases.given_files import corpus_digest
from strategies.releases.merged_fleet import fold_release
from strategies.releases.payloads import delta_between
from strategies.releases.rewritten import quantised_bytes
from strategies.releases.schedule import MERGED, ReleasePlan, Schedule
from strategies.releases.training import TrainedRelease, Vendor, ship_unchanged, train_release

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """The model that everything starts from.

    Attributes:
        path: Its folder.
        template: Text around question and answer.
        max_tokens: Longest example, in tokens.
    """

    path: str
    template: str
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRelease:
    """A release that is out, with what the vendor knows of it.

    Attributes:
        manifest: What devices are told.
        trained: Where it lies.
        round: When it came.
        fleet: Digest of the fleet patch that was folded into it; empty where none was.
    """

    manifest: Manifest
    trained: TrainedRelease
    round: int
    fleet: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord:
    """What a checkpoint keeps of a release, to make or find it again.

    Attributes:
        round: When it came.
        digest: Of its weights.
        fleet: Digest of the fleet patch that was folded into it; empty where none was.
    """

    round: int
    digest: str
    fleet: str = ""


@dataclass(slots=True, kw_only=True)
class Publisher:
    """Makes each release when it is due; keeps those that are out, oldest first."""

    source: SourceModel
    schedule: Schedule
    vendor: Vendor
    published: list[PublishedRelease] = field(default_factory=list[PublishedRelease])

    def newest(self, round_number: int, fleet: Patch | None = None) -> Manifest:
        """Returns the newest release of a round, making whatever is due.

        Args:
            round_number: The round, 0-based.
            fleet: What the fleet learned so far, for a release that it is folded into.
        """
        while len(self.published) <= self.schedule.version(round_number):
            self.published.append(self._make(len(self.published), round_number, fleet))
        return self.published[-1].manifest

    def restore(self, releases: Iterable[ReleaseRecord]) -> None:
        """Makes or finds all releases of an interrupted run again.

        Raises:
            ValueError: If one of them is not what it was.
        """
        for release in releases:
            fleet = fetch_patch(self._patches, release.fleet) if release.fleet else None
            made = self._make(len(self.published), release.round, fleet)
            if made.manifest.digest != release.digest:
                raise ValueError(
                    f"release {made.manifest.version} must have digest {release.digest}, as when "
                    f"the run was interrupted, got {made.manifest.digest} in {made.manifest.path}"
                )
            self.published.append(made)

    def _make(self, version: int, round_number: int, fleet: Patch | None) -> PublishedRelease:
        source = self.source
        folder = Path(source.path)
        parent = self.published[-1].trained if self.published else ship_unchanged(folder)
        plan = self.schedule.plan(version)
        trained, kept = self._merge_fleet(parent, plan, fleet)
        if plan is not None and (plan.kind != MERGED or plan.is_trained):
            encoder = open_encoder(folder, source.template, source.max_tokens)
            trained = train_release(trained, plan, self.vendor, encoder, version)
        shapes = read_shapes(trained.folder)
        size_bytes = _full_bytes(trained, plan)
        from_parent = plan is not None and plan.kind not in {"independent", "external"}
        drifts = tuple(
            drift_between(earlier.trained.folder, trained.folder, shapes, earlier.manifest.version)
            for earlier in self.published
        )
        manifest = Manifest(
            version=version,
            name="initial" if plan is None else plan.name,
            path=str(trained.folder),
            digest=trained.digest,
            size_bytes=size_bytes,
            shapes=shapes,
            template=source.template,
            max_tokens=source.max_tokens,
            drifts=drifts,
            deltas=self._deltas(version, trained, shapes),
            bits=8 * size_bytes / shapes.parameters if _is_quantised(plan) else None,
            parent=version - 1 if version and from_parent else None,
            folded=version if kept else self._last_fold() if from_parent else None,
            corpus="" if plan is None else corpus_digest(plan),
        )
        return PublishedRelease(manifest=manifest, trained=trained, round=round_number, fleet=kept)

    def _merge_fleet(
        self, parent: TrainedRelease, plan: ReleasePlan | None, fleet: Patch | None
    ) -> tuple[TrainedRelease, str]:
        """Returns what a plan goes on from, and the digest of the fleet patch in it."""
        if plan is None or plan.kind != MERGED:
            return parent, ""
        if fleet is None:
            log.warning("release %s: no fleet patch to fold in, no device sent a delta", plan.name)
            return parent, ""
        return fold_release(parent, fleet, self.vendor), keep_patch(self._patches, fleet)

    @property
    def _patches(self) -> Path:
        """Folder of the fleet patches, where a resumed run finds them by their digests."""
        return self.vendor.store / "fleet_patches"

    def _last_fold(self) -> int | None:
        return self.published[-1].manifest.folded if self.published else None

    def _deltas(
        self, version: int, trained: TrainedRelease, shapes: Shapes
    ) -> tuple[ReleaseDelta, ...]:
        """Returns the deltas on offer since every earlier version; none unless asked for."""
        if self.schedule.payload == "full":
            return ()
        plans = [self.schedule.plan(number) for number in range(version + 1)]
        return tuple(
            delta_between(
                earlier.trained.folder,
                trained.folder,
                shapes,
                earlier.manifest.version,
                plans[earlier.manifest.version + 1 :],
            )
            for earlier in self.published
        )


def _full_bytes(trained: TrainedRelease, plan: ReleasePlan | None) -> int:
    """Returns the bytes of a full download."""
    if plan is None or not _is_quantised(plan):
        return weights_bytes(trained.folder)
    return quantised_bytes(trained.folder, plan.bits, embeddings=plan.embeddings)


def _is_quantised(plan: ReleasePlan | None) -> bool:
    return plan is not None and plan.kind == "quantised"


def rms(drift: Drift) -> float:
    """Returns the root mean square of all entries' change since an earlier version."""
    count = sum(entry.drift.count for entry in drift.sites)
    return math.sqrt(sum(entry.drift.squares for entry in drift.sites) / count)
