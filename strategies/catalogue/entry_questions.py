"""Questions and canaries of entries that were not tuned on text of the server's.

The questions are a list that the experiment names, and no user wrote them: a catalogue's manifest
brings them to every phone, and the store keeps them. What an entry answered under one release is
its canary under the next one; no user wrote that text either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fleettune.data.tokens import Example, open_encoder
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream
from strategies.catalogue.entries import Entry, EntryTools, answer_questions
from strategies.catalogue.explain import Explain


def check_questions(explain: Explain, questions: Sequence[str]) -> None:
    """Raises ValueError if a list holds fewer different questions than are to be asked."""
    count = len(set(questions))
    if count < explain.questions:
        raise ValueError(
            "catalogue.explain.questions must be at most the different questions of "
            f"catalogue.questions, {count}, got {explain.questions}: lower it or list more"
        )


def pick_questions(explain: Explain, questions: Sequence[str], seed: int) -> tuple[str, ...]:
    """Returns those of a list that base and entries answer, drawn by key, each at most once."""
    listed = tuple(dict.fromkeys(questions))
    drawn: list[int] = stream(seed, Purpose.CATALOGUE, 9).permutation(len(listed)).tolist()
    return tuple(listed[place] for place in drawn[: explain.questions])


def collect_own_answers(
    questions: Sequence[str],
    most: int,
    entries: Sequence[Entry],
    release: Manifest,
    tools: EntryTools,
) -> Mapping[str, tuple[Example, ...]]:
    """Returns what every entry answers to the catalogue's questions under its release.

    An answer that was cut off goes without the token that ends one: the entry did not write it, and
    how unlikely that is would drown the rest.

    Args:
        questions: The questions.
        most: Tokens of the longest answer.
        entries: Of the release.
        release: The release.
        tools: Run the jobs.
    """
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
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
