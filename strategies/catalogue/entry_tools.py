"""Workshop: what the server makes a catalogue's entries with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fleettune.cohort.execute import Execute
from fleettune.data.exchanges import Population
from strategies.catalogue.shared_deltas import SharedDeltas


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What entries are made with.

    Attributes:
        store: Folder of the catalogues' patches.
        seed: Key of corpora, questions and adapters.
        run: Runs jobs.
        population: Where text of users outside the fleet comes from; None where no source of the
            run asks for any.
        shared: The deltas that devices shared.
    """

    store: Path
    seed: int
    run: Execute
    population: Population | None
    shared: SharedDeltas
