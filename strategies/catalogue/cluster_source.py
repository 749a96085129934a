"""Clustered catalogues: entries from the deltas that devices shared in this very run.

The server uses nothing of a user but the delta, and gives nobody's out: an entry is the mean of
several devices'. The deltas are the first arm's, and all arms are offered the same catalogue, as
all live with the releases that the first arm's fleet patch is folded into.

A delta is what a device's tune changed beyond what the server sent. Until a release has a catalogue
nothing was sent, without a fleet patch, so its deltas are whole patches, all against one base. Once
it has one, no more of its deltas are taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleettune.releases.manifest import Manifest
from strategies.aggregation.fleet_patch import NONE
from strategies.catalogue.clusters import Clustering, cluster_entries
from strategies.catalogue.entries import Entry
from strategies.catalogue.entry_tools import Workshop
from strategies.catalogue.explain import Explain, check_counts, check_worse
from strategies.catalogue.still_valid import Outlived


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCatalogue:
    """A catalogue of clusters of shared deltas.

    Attributes:
        clusters: How many are looked for.
        members: Fewest devices of a cluster that has an entry, 2 or more.
        least: Deltas of a release without which it has no catalogue; they come one per device.
        most: Largest number of them that is kept, a sample drawn by key.
        rank: Largest rank of an entry.
        alpha: Its alpha.
        width: Rows and columns of the sketch by which deltas are compared, at every site.
        explain: How entries are explained.
        worse: Nats per token by which a release may make an entry's own answers less likely and it
            is still reused.

    Raises:
        ValueError: If a value breaks its rule.
    """

    clusters: int
    members: int
    least: int
    most: int
    rank: int
    alpha: float
    width: int
    explain: Explain
    worse: float

    def __post_init__(self) -> None:
        check_counts(self, "rank", "width")
        check_worse(self.worse)
        if not self.alpha > 0:
            raise ValueError(f"catalogue.alpha must be > 0, got {self.alpha}")
        for name in ("clusters", "members"):
            if getattr(self, name) < 2:
                raise ValueError(f"catalogue.{name} must be >= 2, got {getattr(self, name)}")
        needed = self.clusters * self.members
        if self.least < needed:
            raise ValueError(
                "catalogue.least must be >= catalogue.clusters times catalogue.members, "
                f"{needed} deltas, got {self.least}"
            )
        if self.most < self.least:
            raise ValueError(
                f"catalogue.most must be >= catalogue.least, {self.least} deltas, got {self.most}"
            )

    def check_fleet(self, devices: int, fleet_patch: str) -> None:
        """Raises ValueError if a fleet cannot share what the clusters are made of."""
        if self.least > devices:
            raise ValueError(
                f"catalogue.least must be at most fleet.devices, {devices}, each of which shares a "
                f"delta of a release, got {self.least}"
            )
        if fleet_patch != NONE:
            raise ValueError(
                f"catalogue=clusters needs fleet_patch={NONE}, got {fleet_patch}: deltas against "
                "a fleet patch, another one every round, are not patches to compare"
            )

    def made(
        self, release: Manifest, outlived: Outlived | None, workshop: Workshop
    ) -> tuple[Entry, ...] | None:
        """Returns the entries of a release; None until enough of its deltas came.

        A partition is reused whole or made anew: with one of its clusters gone, the devices like
        that one would find entries of all others but of none like them.
        """
        if outlived is not None and outlived.whole:
            return outlived.kept
        if workshop.shared.count(release.version) < self.least:
            return None
        how = Clustering(
            clusters=self.clusters,
            rank=self.rank,
            alpha=self.alpha,
            width=self.width,
            members=self.members,
            seed=workshop.seed,
        )
        return cluster_entries(workshop.shared.of(release.version), how)
