"""A tune as it was planned for a device, or what hinders it."""

from __future__ import annotations

from dataclasses import dataclass, field

from clients.tuning.context import PlacementContext
from clients.tuning.schedule import Held
from fleettune.adapters.patch import Placement
from fleettune.cost.workload import Entry
from fleettune.data.tokens import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class TunePlan:
    """A tune that fits the device.

    Attributes:
        context: What it was planned from.
        placement: Which sites train.
        batches: The examples of every optimizer step.
        cache_bytes: Bytes of the device's prefix cache while it tunes; 0 without one.
        entries: What it asks of the device.
        peak_bytes: Memory at its peak, as priced; what its rule did before it placed is counted.
        over_budget: Whether that is more joules than its placement rule's budget.
        held: What it validates on.
        making: What making synthetic pairs for it asked of the device.
        synthesised: Synthetic pairs made for it.
        synthetic_kept: Those that it trains on.
    """

    context: PlacementContext
    placement: Placement
    batches: tuple[tuple[Example, ...], ...]
    cache_bytes: int
    entries: list[Entry]
    peak_bytes: float
    over_budget: bool = False
    held: Held = field(default_factory=Held)
    making: list[Entry] = field(default_factory=list[Entry])
    synthesised: int = 0
    synthetic_kept: int = 0

    @property
    def work(self) -> list[Entry]:
        """Everything that it asks of the device."""
        return [*self.making, *self.entries]

    @property
    def tokens(self) -> int:
        """Simulated tokens trained on, prompts included."""
        return sum(len(example.tokens) for batch in self.batches for example in batch)
