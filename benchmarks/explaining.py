"""Where an explanation's words come from, and how vectors are decomposed: what reads rightly?

Of every entry the strongest word, by its source (measured in sampled answers, instructed, proposed
by the model itself) and decomposition (Gram-Schmidt, released): whether it is on the right side of
the right axis, and whether it names an axis at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from styled import RELEASE, STYLES

from fleettune.catalogue.explanation import explained as told
from fleettune.cohort.execute import execute
from fleettune.data.styles import plain_questions
from measure import emit
from simulations.studies.explained_words import LESS, MORE, is_right
from strategies.catalogue import entries as catalogue
from strategies.catalogue.explain import GRAM_SCHMIDT, RELEASED, WORDS, Explain


def explaining(entries: Sequence[catalogue.Entry], questions: int) -> None:
    """Prints how often the strongest word is right, by source of words and decomposition."""
    asked = plain_questions(questions, seed=1)
    detail: dict[str, Any] = {"entries": len(entries), "questions": questions}
    for words in WORDS:
        plain = Explain(words=words)
        released = Explain(words=words, decomposition=RELEASED, beside=0, shrink=None)
        for name, how in ((GRAM_SCHMIDT, plain), (RELEASED, released)):
            manifest = catalogue.explained(entries, how.of(asked), RELEASE, execute).manifest
            detail[f"{words}_{name}"] = strongest(manifest)
    value = detail[f"{WORDS[0]}_{GRAM_SCHMIDT}"]["right"]
    emit("strongest_word_right_by_source", value / len(entries), detail)


def strongest(manifest: Any) -> dict[str, Any]:  # noqa: ANN401 - a manifest
    """Returns counts over entries, and the accepted words in order."""
    basis = manifest.basis
    first = [
        told(basis.words, basis.opposites, place, manifest.middle)[0].word
        for place in manifest.coordinates
    ]
    named = zip(STYLES, first, strict=True)
    return {
        "right": sum(is_right({"entry": style.name, "strongest": word}) for style, word in named),
        "names_an_axis": sum(word in MORE or word in LESS for word in first),
        "words": list(basis.words),
    }
