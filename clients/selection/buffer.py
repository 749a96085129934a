"""The buffer: exchanges that a device holds, with what its selection keeps beside each.

Bytes are those of what is stored: texts as UTF-8, embeddings in half precision (2 bytes per
number), scores in single precision (4 bytes each).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fleettune.data.exchanges import Exchange

SCORE_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a device keeps beside one exchange.

    Attributes:
        vector: Its embedding, half-precision numbers as bytes; empty where none is kept.
        scores: Numbers of the selection rule, each rounded to single precision.
        asked: True if the user gave the preferred answer; without, it cannot be tuned on.
        lent: True while the embedding lies in working memory only, made again for a selection.
    """

    vector: bytes = b""
    scores: tuple[float, ...] = ()
    asked: bool = False
    lent: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes as stored."""
        return SCORE_BYTES * len(self.scores) + (0 if self.lent else len(self.vector))

    def without_lent(self) -> Note:
        """Returns the note without an embedding that was lent."""
        return replace(self, vector=b"", lent=False) if self.lent else self


ANSWERED = Note(asked=True)
"""The note of an exchange about which nothing is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One exchange in the buffer."""

    exchange: Exchange
    note: Note = field(default_factory=Note)

    @property
    def order(self) -> int:
        """Its place in the user's stream."""
        return self.exchange.order

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts and of what is kept beside them."""
        return self.exchange.size_bytes + self.note.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One exchange that arrived, with what an embedding pass said of it.

    Attributes:
        exchange: The exchange.
        vector: As `Note.vector`; empty where the selection asked for no pass.
        entropy: Entropy of its tokens' normalised hidden norms, in nats.
        tokens: Tokens that the entropy is over.
        lent: As `Note.lent`.
    """

    exchange: Exchange
    vector: bytes = b""
    entropy: float = 0.0
    tokens: int = 0
    lent: bool = False

    @property
    def order(self) -> int:
        """Its place in the user's stream."""
        return self.exchange.order


def sort_by_time(items: Iterable[Item]) -> tuple[Item, ...]:
    """Returns items in the order of the user's stream."""
    return tuple(sorted(items, key=lambda item: item.order))


def total_bytes(items: Iterable[Item], beside: int = 0) -> int:
    """Returns the bytes of items, with `beside` further ones for each."""
    return sum(item.size_bytes + beside for item in items)


def fit_quota(items: Sequence[Item], quota_bytes: int, beside: int = 0) -> tuple[Item, ...]:
    """Returns the items in time order, without the oldest ones that do not fit.

    What a device holds is made here and nowhere else, so no rule can exceed a quota.

    Args:
        items: What a selection wants to hold.
        quota_bytes: What it may.
        beside: Bytes that come with every item.
    """
    kept = sort_by_time(items)
    used = total_bytes(kept, beside)
    while kept and used > quota_bytes:
        used -= kept[0].size_bytes + beside
        kept = kept[1:]
    return kept


def pack_vector(vector: NDArray[np.float32]) -> bytes:
    """Returns an embedding as it is stored."""
    return vector.astype("<f2").tobytes()


def round_score(value: float) -> float:
    """Returns a number as it is stored."""
    return float(np.float32(value))


def unit_rows(vectors: Sequence[bytes]) -> NDArray[np.float32]:
    """Returns stored embeddings as rows of norm 1, ``(vectors, hidden)``."""
    flat = np.frombuffer(b"".join(vectors), "<f2").astype(np.float32)
    rows = flat.reshape(len(vectors), -1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
