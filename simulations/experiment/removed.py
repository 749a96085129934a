"""Says where options and keys went that earlier versions had."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OPTUNA = (
    "was deleted: a search by Optuna costs joules that grow with the catalogue (docs/LOG.md); "
    "take start=catalogue, or start=exhaustive or start=halving for a search"
)
_WORDS = (
    "was deleted: words measured in the release's sampled answers told entries apart better than "
    "instructed and proposed ones (docs/LOG.md); leave the key out"
)
_STEPS = (
    "was deleted with the steps of a retune by its drift: no study showed a gain of them; leave "
    "the key out, tuning.steps or tuning.epochs are the steps of every tune"
)
_PROBE = "placement.probe=server was deleted: nothing used it; leave the key out, devices probe"
_FIRST_RELEASES = (
    "this release was deleted with the studies of the first built-in world (docs/first_world.md); "
    "take release=pocket_v1, or release=study_mixed with data=synthetic"
)
REMOVED: Mapping[str, str] = {
    "start/bayesian": f"start=bayesian {_OPTUNA}",
    "start/hyperband": f"start=hyperband {_OPTUNA}",
    "arms/xpert_optuna": "arms=xpert_optuna was deleted with the searches of Optuna; "
    "take arms=xpert_cost",
    "study/xpert_search": "study=xpert_search was deleted with the searches of Optuna; take "
    "study=xpert_styles; its worlds size_4, size_16 and size_64 draw the cost of finding an entry",
    "study/reuse_worlds": "study=reuse_worlds was deleted with the studies of the first "
    "built-in world (docs/first_world.md); take study=reuse_or_retune",
    "arms/rivals": "arms=rivals was deleted; take arms=selection, or arms=selection_few for fewer",
    "release/study_mixed_v1": _FIRST_RELEASES,
    "release/study_other_mix_v1": _FIRST_RELEASES,
    "start.keep": "start.keep was deleted: docs/LOG.md says what one part of a sum of two is worth "
    "alone; leave the key out, which is keep=both",
    "start.distance": "start.distance was deleted: cosine found the entry more often than relative "
    "and published (docs/LOG.md); leave the key out",
    "catalogue.explain.summariser_model": "catalogue.explain.summariser_model was deleted: another "
    "model found the entry no more often than stylometry and had to be downloaded (docs/LOG.md); "
    "leave the key out",
    "catalogue.explain.words": f"catalogue.explain.words {_WORDS}",
    "catalogue.explain.most_words": f"catalogue.explain.most_words {_WORDS}",
    "catalogue.explain.decomposition": "catalogue.explain.decomposition was deleted: XPerT's "
    "released form found fewer and worse words (docs/LOG.md); leave the key out",
    "adaptation.steps_at_threshold": f"adaptation.steps_at_threshold {_STEPS}",
    "adaptation.steps_max": f"adaptation.steps_max {_STEPS}",
    "adaptation.defer": "adaptation.defer was deleted: no study showed a gain of retunes that are "
    "put off; leave the key out, a device tunes on the night on which it decides",
    "placement.probe": _PROBE,
    "placement.like.probe": _PROBE,
}
"""One sentence by option, ``group/option``, or by key."""


def explain_removal(message: str) -> str | None:
    """Returns the sentence on what an error message names and was removed; None where nothing was.

    Args:
        message: Of Hydra or of a check; keys may have an arm's name before them.
    """
    for name in re.findall(r"[\w./]+", message):
        for known, sentence in REMOVED.items():
            if name == known or name.endswith(f".{known}"):
                return sentence
    return None
