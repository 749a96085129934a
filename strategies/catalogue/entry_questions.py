"""Questions and canaries of entries that were not tuned on text of the server's.

Their questions are those of users outside the fleet, as a release's training text is. Some of these
have answers without a style, as some of a user's have, so entries and users are placed alike. What
an entry answered under one release is its canary under the next one; no user wrote that text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fleettune.data.exchanges import Population, take_in_turn
from fleettune.data.tokens import Example, open_encoder
from fleettune.releases.manifest import Manifest
from strategies.catalogue.entries import Entry, EntryTools, answer_questions
from strategies.catalogue.explain import Explain

TEXT = 900
"""Key of the questions. Keys of releases are lower, so none was made of this text."""


def draw_outside_questions(explain: Explain, tools: EntryTools) -> tuple[str, ...]:
    """Returns questions of users outside the fleet.

    Raises:
        ValueError: If the tools know none, or too few.
    """
    if tools.population is None:
        raise ValueError("a catalogue without text needs a population to ask, got none")
    found = take_in_turn(tools.population, explain.questions, tools.seed * 1000 + TEXT)
    check_questions(explain, len(found))
    return tuple(exchange.question for exchange in found)


def check_outside_questions(explain: Explain, population: Population) -> None:
    """Raises ValueError if too few questions of users outside the fleet are there to be asked."""
    check_questions(explain, len(take_in_turn(population, explain.questions, 0)))


def check_questions(explain: Explain, count: int) -> None:
    """Raises ValueError if a number of questions is not the number that is to be asked."""
    if count < explain.questions:
        raise ValueError(
            "catalogue.explain.questions must be at most the exchanges of users outside the "
            f"fleet, {count}, got {explain.questions}: lower it or raise data.outside_share"
        )


def collect_own_answers(
    explain: Explain, entries: Sequence[Entry], release: Manifest, tools: EntryTools
) -> Mapping[str, tuple[Example, ...]]:
    """Returns what every entry answers to the catalogue's questions under its release.

    An answer that was cut off goes without the token that ends one: the entry did not write it, and
    how unlikely that is would drown the rest.
    """
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    questions, most = draw_outside_questions(explain, tools), explain.new_tokens
    prompts = [encoder.request(question) for question in questions]
    written = answer_questions(entries, questions, most, release, tools.run)
    return {
        entry.name: tuple(
            Example(
                tokens=(*prompt, *tokens, *((encoder.stop,) if len(tokens) < most else ())),
                prompt=len(prompt),
            )
            for prompt, tokens in zip(prompts, own, strict=True)
        )
        for entry, own in zip(entries, written, strict=True)
    }
