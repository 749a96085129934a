"""Schedule: when releases come and what each of them is trained on."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("full", "low_rank")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePlan:
    """How the vendor makes one release from the one before, by continued pretraining.

    Attributes:
        name: What reports call it, for example mild or severe.
        kind: ``full`` trains all weights, ``low_rank`` a LoRA that is merged.
        steps: Optimizer steps.
        learning_rate: Peak learning rate.
        batch: Windows per step.
        window: Tokens per window.
        conversations: Conversations of users outside the fleet in the corpus.
        vendor: Share of exchanges in the vendor's new wording (built-in data only), 0 to 1.
        paraphrases: Share of paraphrase requests (built-in data only), 0 to 1.
        rank: Rank of a low-rank release.
        top_layers: Layers that a low-rank release adapts, counted from the output.
    """

    name: str
    kind: str
    steps: int
    learning_rate: float
    batch: int
    window: int
    conversations: int
    vendor: float = 0.0
    paraphrases: float = 0.0
    rank: int = 16
    top_layers: int = 12

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"release kind must be one of {KINDS}, got {self.kind!r}")
        for name in ("steps", "batch", "window", "conversations", "rank", "top_layers"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"release {self.name}: {name} must be >= 1, got {value}")
        if not self.learning_rate > 0:
            raise ValueError(
                f"release {self.name}: learning_rate must be > 0, got {self.learning_rate}"
            )
        for name, share in (("vendor", self.vendor), ("paraphrases", self.paraphrases)):
            if not 0 <= share <= 1:
                raise ValueError(f"release {self.name}: {name} must be from 0 to 1, got {share}")

    @property
    def tokens(self) -> int:
        """Tokens that the release trains on."""
        return self.steps * self.batch * self.window


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When releases come.

    Attributes:
        every: Nights between two releases; release 0 is there on the first night.
        initial: How release 0 is made from the given model; None ships the model as it is.
        plans: How releases 1, 2, ... are made; the last plan repeats.
    """

    every: int
    plans: tuple[ReleasePlan, ...]
    initial: ReleasePlan | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"release.every must be >= 1 night, got {self.every}")
        if not self.plans:
            raise ValueError("release.plans must hold at least one plan, got none")

    def version(self, round_number: int) -> int:
        """Returns the newest version that is out in a round, both counted from 0."""
        return round_number // self.every

    def plan(self, version: int) -> ReleasePlan | None:
        """Returns how a version is made; None for a release 0 that is shipped as it is."""
        if version == 0:
            return self.initial
        return self.plans[min(version, len(self.plans)) - 1]
