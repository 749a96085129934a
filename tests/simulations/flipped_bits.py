"""Checkpoints with flipped bits: each is refused by our own error, or is what it was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simulations.checkpoint.store import Store, to_blob


def read_all(file: Path, holders: Sequence[tuple[str, int]]) -> tuple[object, ...]:
    """All that a resumed run is given of a checkpoint."""
    with Store(file) as store:
        states = {holder: to_blob(kept) for holder, kept in store.load(holders).items()}
        return store.last_round, store.server_state(), list(store.rows()), states


def is_told(said: str, file: Path) -> bool:
    """Whether one sentence names the file, its damage and what to do."""
    what = r"is damaged \(.*\) and|cannot be written|must have schema 3, got"
    return re.fullmatch(rf"(checkpoint )?{file} ({what}) .*start the run anew.*", said) is not None


def flip_bits(
    whole: Path, holders: Sequence[tuple[str, int]], span: int, seeds: range, into: Path
) -> dict[int, Path | None]:
    """Flips 1 to 20 bits of a checkpoint's first bytes per seed, and checks what comes of each.

    Returns the file by seed where nothing in it is another, and None where it is refused.
    """
    told, sound = read_all(whole, holders), whole.read_bytes()
    outcomes: dict[int, Path | None] = {}
    for seed in seeds:
        rng = np.random.default_rng([seed, span])
        damaged, file = bytearray(sound), into / f"{span}_{seed}" / "state.sqlite"
        for bit in rng.integers(0, 8 * min(span, len(sound)), rng.integers(1, 21)):
            damaged[bit // 8] ^= 1 << (bit % 8)
        file.parent.mkdir()
        file.write_bytes(damaged)
        refused: Exception | None = None
        try:
            found = read_all(file, holders)
        except ValueError as error:
            refused, found = error, None
        if refused is None:
            assert found == told, f"seed {seed} changed in silence"
        else:
            assert is_told(str(refused), file), f"seed {seed}: {refused!r}"
        outcomes[seed] = file if refused is None else None
    return outcomes
