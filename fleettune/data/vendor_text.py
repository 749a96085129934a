"""The vendor's training text: conversations of users outside the fleet, as one token stream.

The corpus of the built-in world also holds what later methods ask of a model: paraphrases of a
request ("say it another way: ...") and requests for a style level ("answer warmly: ...", made
by `fleettune.data.personas`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fleettune.data.exchanges import Exchange
from fleettune.data.personas import reword_as_vendor
from fleettune.data.tokens import POCKET
from fleettune.data.vocabulary import ASKS, GREETINGS
from fleettune.seeds import Purpose, stream

PARAPHRASE = POCKET.reword

Conversation = tuple[Exchange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusMix:
    """What a corpus is mixed from.

    Attributes:
        conversations: Number of conversations of users outside the fleet.
        paraphrases: Share of conversations that ask for a paraphrase, 0 to 1.
        vendor: Share of exchanges in the vendor's new wording, 0 to 1.
    """

    conversations: int
    paraphrases: float = 0.0
    vendor: float = 0.0

    def __post_init__(self) -> None:
        if self.conversations < 1:
            raise ValueError(f"corpus.conversations must be >= 1, got {self.conversations}")
        for name, share in (("paraphrases", self.paraphrases), ("vendor", self.vendor)):
            if not 0 <= share <= 1:
                raise ValueError(f"corpus.{name} must be a share from 0 to 1, got {share}")


def mix_corpus(
    conversations: Sequence[Conversation], mix: CorpusMix, seed: int
) -> Iterable[Conversation]:
    """Yields the conversations with paraphrase requests and new wording mixed in."""
    rng = stream(seed, Purpose.RELEASE, 1)
    for conversation in conversations:
        if rng.random() < mix.paraphrases:
            yield _paraphrase(*(int(rng.integers(n)) for n in (len(ASKS), 6, len(GREETINGS))))
        yield tuple(
            _reworded(exchange) if rng.random() < mix.vendor else exchange
            for exchange in conversation
        )


def _paraphrase(ask: int, pair: int, greeting: int) -> Conversation:
    phrases = ASKS[ask].phrases
    first = pair % 3
    second = (first + 1 + pair // 3) % 3
    opening = GREETINGS[greeting]
    return (
        Exchange(
            question=PARAPHRASE + opening + phrases[first],
            response=opening + phrases[second],
            day=0,
            order=0,
            domain="paraphrase",
        ),
    )


def _reworded(exchange: Exchange) -> Exchange:
    question, response = reword_as_vendor((exchange.question, exchange.response))
    return replace(exchange, question=question, response=response)
