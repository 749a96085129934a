"""Schedule: when releases come and what each of them is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from strategies.aggregation.fleet_patch import NONE, START

_TRAINED = (
    *("steps", "learning_rate", "batch", "window"),
    *("conversations", "vendor", "paraphrases", "leans", "about", "corpus"),
)
MERGED = "merged_fleet"
READS: Mapping[str, tuple[str, ...]] = {
    "full": _TRAINED,
    "low_rank": (*_TRAINED, "rank", "top_layers"),
    "independent": _TRAINED,
    "reparametrised": ("scale",),
    "quantised": ("bits", "embeddings"),
    MERGED: _TRAINED,
    "external": ("path",),
}
"""What each kind of release is made from; any other field must stay at its default."""

KINDS = tuple(READS)
PAYLOADS = ("full", "auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePlan:
    """How the vendor makes one release from the one before.

    Kinds: ``full`` trains all weights further, ``low_rank`` a LoRA that is merged, ``independent``
    all weights from fresh ones. ``reparametrised`` writes the same function in other weights,
    ``quantised`` rounds weights to few bits, ``merged_fleet`` adds what the fleet learned and, with
    steps, trains on from there, ``external`` takes a model that is there already.
    A field that a kind does not read (`READS`) must stay at its default.

    Attributes:
        name: What reports call it, for example mild or severe.
        kind: One of `KINDS`.
        steps: Optimizer steps.
        learning_rate: Peak learning rate.
        batch: Windows per step.
        window: Tokens per window.
        conversations: Conversations of users outside the fleet in the corpus, or with a file of
            its own rows drawn from it; all where there are fewer.
        vendor: Share of exchanges in the vendor's new wording (built-in data only), 0 to 1.
        paraphrases: Share of paraphrase requests (built-in data only), 0 to 1.
        leans: World of manners only: what everybody in the corpus has of some habits, each as
            ``habit=option`` (`fleettune.data.composing.HABITS`); a patch whose user relied on what
            the model did there before is broken, others are not.
        about: World of manners only: topics of the corpus; empty: all.
        rank: Rank of a low-rank release.
        top_layers: Layers that a low-rank release adapts, counted from the output.
        scale: Factor on every v, with its inverse on every o.
        bits: Bits of a rounded weight, 8 or 4.
        embeddings: True if embedding and head are rounded as well.
        path: Folder of an external model, or a hub id.
        corpus: File of exchanges to train on instead of text of users
            (`strategies.releases.given_files`);
            empty: none.
    """

    name: str
    kind: str
    steps: int = 0
    learning_rate: float = 0.0
    batch: int = 0
    window: int = 0
    conversations: int = 0
    vendor: float = 0.0
    paraphrases: float = 0.0
    leans: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    rank: int = 16
    top_layers: int = 12
    scale: float = 1.0
    bits: int = 0
    embeddings: bool = False
    path: str = ""
    corpus: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"release kind must be one of {KINDS}, got {self.kind!r}")
        self._check_training()
        self._check_rewriting()
        for name, value in asdict(self).items():
            if name not in ("name", "kind", *self.reads) and value != _DEFAULTS[name]:
                reads = ", ".join(self.reads) or "nothing without steps"
                self._refuse(name, f"left out for kind {self.kind}, which reads {reads} only")

    @property
    def is_trained(self) -> bool:
        """True if the release is trained on text."""
        return "steps" in READS[self.kind] and (self.kind != MERGED or self.steps != 0)

    @property
    def reads(self) -> tuple[str, ...]:
        """What it is made from; a merged one without steps trains on nothing."""
        return () if self.kind == MERGED and not self.is_trained else READS[self.kind]

    @property
    def tokens(self) -> int:
        """Tokens that the release trains on."""
        return self.steps * self.batch * self.window

    def _check_training(self) -> None:
        self._at_least_one("rank", "top_layers")
        if not self.is_trained:
            return
        self._at_least_one("steps", "batch", "window", "conversations")
        if not self.learning_rate > 0:
            self._refuse("learning_rate", "> 0")
        for name, share in (("vendor", self.vendor), ("paraphrases", self.paraphrases)):
            if not 0 <= share <= 1:
                self._refuse(name, "from 0 to 1")
            if self.corpus and share:
                self._refuse(name, "0 with a corpus of its own, which is read as it is")
        if self.corpus and (self.leans or self.about):
            self._refuse("leans" if self.leans else "about", "empty with a corpus of its own")

    def _check_rewriting(self) -> None:
        if self.kind == "reparametrised" and not 1 / 64 <= self.scale <= 64:
            self._refuse("scale", "from 1/64 to 64, so that half precision holds the weights")
        if self.kind == "reparametrised" and self.scale == 1:
            self._refuse("scale", "another number than 1, which changes no weight")
        if self.kind == "quantised" and self.bits not in {4, 8}:
            self._refuse("bits", "4 or 8")
        if self.kind == "external" and not self.path:
            self._refuse("path", "a model's folder or hub id")

    def _at_least_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                self._refuse(name, ">= 1")

    def _refuse(self, name: str, rule: str) -> None:
        value = getattr(self, name)
        raise ValueError(f"release {self.name}: {name} must be {rule}, got {value!r}")


_DEFAULTS: Mapping[str, Any] = {
    field.name: field.default for field in fields(ReleasePlan) if field.default is not MISSING
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When releases come.

    Attributes:
        every: Nights between two releases; release 0 is there on the first night.
        initial: How release 0 is made from the given model; None ships the model as it is.
        plans: How releases 1, 2, ... are made; the last plan repeats.
        payload: What devices are offered: ``full`` releases only, or with ``auto`` deltas since
            every earlier version as well.
    """

    every: int
    plans: tuple[ReleasePlan, ...]
    initial: ReleasePlan | None = None
    payload: str = "full"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"release.every must be >= 1 night, got {self.every}")
        if not self.plans:
            raise ValueError("release.plans must hold at least one plan, got none")
        if self.payload not in PAYLOADS:
            raise ValueError(f"release.payload must be one of {PAYLOADS}, got {self.payload!r}")
        if self.initial is not None and self.initial.kind == MERGED:
            raise ValueError(f"release.initial must not be of kind {MERGED}: no fleet came before")

    def version(self, round_number: int) -> int:
        """Returns the newest version that is out in a round, both counted from 0."""
        return round_number // self.every

    @property
    def merges(self) -> bool:
        """True if any release is made with what the fleet learned."""
        return any(plan.kind == MERGED for plan in self.plans)

    def plan(self, version: int) -> ReleasePlan | None:
        """Returns how a version is made; None for a release 0 that is shipped as it is."""
        if version == 0:
            return self.initial
        return self.plans[min(version, len(self.plans)) - 1]


def check_merged(use: str, schedule: Schedule) -> None:
    """Raises ValueError if a release merges the fleet patch and the run has none."""
    if schedule.merges and use == NONE:
        raise ValueError(f"releases of kind {MERGED} need fleet_patch={START}, got {use}")
