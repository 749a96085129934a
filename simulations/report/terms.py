"""The words of the product with their meanings, and how a page explains them where they stand."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

GLOSSARY: Mapping[str, str] = {
    "absent": "a night on which a device was never idle on its charger and on Wi-Fi",
    "adapter": "small matrices beside frozen ones, which are all that is trained; see LoRA",
    "aggregation": "how the server adds up the deltas of a round",
    "arm": "a policy that lives beside others in one run, with the same users, phones and releases",
    "backbone": "the language model that is adapted; its own weights change with releases only",
    "buffer": "the exchanges that a device keeps, within its quota of storage",
    "canary": "an exchange that a patch was not trained on, by which a device sees what a release "
    "did to it",
    "catalogue": "patches that the server offers to start from",
    "codec": "how a delta becomes fewer bytes before it is sent",
    "coefficient": "a number of a device profile that turns work into seconds or joules",
    "delta": "the change of a device's patch against what the server sent; the only text-free "
    "thing that leaves a device besides numbers",
    "device class": "the hardware profile of a device: which phone it is and what runs on it",
    "draw": "one set of values for all coefficients, picked from their ranges; the same for all "
    "arms",
    "drift": "how far a release moved the weights, as moments per matrix",
    "entry": "one patch of a catalogue",
    "exact match": "the share of answers that the model writes word for word as the user would",
    "exchange": "a question of a user and its right answer",
    "fleet": "all devices of a run",
    "fleet patch": "what the devices' deltas said together, sent back to all",
    "flip": "a night or a tune that would have ended otherwise under another draw: late or in "
    "time, with enough memory or without",
    "GradCut": "a rule of placement that trains only the upper layers, so that the pass back is "
    "short",
    "guidance": "a score of reuse or retune that comes with a release",
    "idle": "the energy of a device that is merely kept awake",
    "infeasible": "a retune that was decided and could not be done, for lack of memory or energy",
    "int8": "a codec that sends one byte for each number",
    "interrupted": "a night on which a device left its charger before its work was done",
    "interval": "the range that holds the true value with 95 % confidence, bootstrapped over "
    "devices unless it says otherwise",
    "late": "a night whose work was done after the server had stopped waiting",
    "ledger": "a boundary within which joules are counted; ledgers overlap and are not added up",
    "LoRA": "low-rank adaptation: a frozen matrix gets two small trained ones beside it",
    "manner": "the habits of wording of a user in the built-in world",
    "marginal": "above the idle draw: energy that the work itself took",
    "nats": "unit of the model's loss; one nat is 1.44 bits",
    "night": "one round: a device receives, selects, decides, tunes and uploads",
    "null world": "a world in which nothing personal can be learned; no arm may gain there",
    "observer": "the experiment's own measuring; it sees days to come, no rule sees it, nobody "
    "pays for it",
    "Pareto front": "the trials of a search that no other trial beats in both quality and joules",
    "patch": "the LoRA adapter of one device",
    "placement": "the choice of the matrices that get an adapter",
    "points": "percentage points: a difference of two shares",
    "policy": "the set of rules that a device follows",
    "priced as": "the model whose sizes decide joules, seconds, bytes and memory",
    "probe": "training steps that are tried before a tune, to find out what is worth training",
    "reference": "the arm that savings and differences are measured against",
    "release": "a published version of the model",
    "retune": "to train the patch again for a release",
    "reuse": "to keep the old patch for a release",
    "round": "one night of all devices",
    "scale-bound": "a saving that doubled or halved speeds and powers would move by more than a "
    "twentieth of it",
    "scale-free": "a saving that doubled or halved speeds and powers would hardly move",
    "seed": "a key of all randomness: other users, phones, texts and releases",
    "selection": "the choice of the exchanges that a device keeps",
    "serve": "the user's own use of the model",
    "site": "a matrix of the model's layers that can get an adapter",
    "starved": "a night on which the battery was too low to work",
    "study": "runs of several worlds and seeds that put claims to the test",
    "synthesis": "the making of more training pairs from the exchanges that a device keeps",
    "sweep": "one run for each combination of several values",
    "tier": "how well founded a coefficient is: M measured by its source, F fitted to "
    "measurements, S second-hand, V a vendor's claim, E an estimate",
    "trial": "one run of a search, with values that Optuna chose",
    "tune": "to train a patch on the buffer's exchanges for some steps",
    "unseen answer": "an answer that stands in nothing that the device read before",
    "wall": "the energy at the socket, with what the charger loses",
    "wasted": "energy of work that was cut short or came too late",
    "world": "where data come from: users, their texts and how these change",
}
"""What each word means. docs/glossary.md and the pages of runs take their text from here."""
_FORMS: Mapping[str, str] = {
    "class": "device class",
    "classes": "device class",
    "device-marginal": "marginal",
    "entries": "entry",
    "policies": "policy",
    "retuned": "retune",
    "reused": "reuse",
    "unseen answers right": "unseen answer",
}
"""Other forms of a word, beside an ``s`` at its end."""
_WORDS = {word.lower(): word for word in GLOSSARY} | _FORMS
_KNOWN = re.compile(
    rf"(?<![\w-])(?:{'|'.join(sorted(map(re.escape, _WORDS), key=len, reverse=True))})s?(?![\w-])",
    re.IGNORECASE,
)
_TAG = re.compile(r"(<[^>]*>)")
_LINKED = re.compile(r'href="#term-([\w-]+)"')


def explain_terms(text: str) -> Markup:
    """Returns a text in which each known word, where it first stands, tells its meaning.

    It becomes a link to the page's list of words; the meaning shows under the pointer.

    Args:
        text: Text, which is escaped, or HTML as `markupsafe.Markup`; no word of an element's tag
            is touched.
    """
    seen: set[str] = set()
    pieces = _TAG.split(str(escape(text)))
    return Markup("".join(piece if piece[:1] == "<" else _link(piece, seen) for piece in pieces))


def list_linked_terms(html: str) -> list[tuple[str, str, str]]:
    """Returns anchor, word and meaning of every word that links of a page lead to, by name."""
    anchors = set(_LINKED.findall(html))
    known = ((_name_anchor(word), word, meaning) for word, meaning in GLOSSARY.items())
    return [one for one in known if one[0] in anchors]


def find_term(written: str) -> str | None:
    """Returns the word of the glossary of which a text is a form; None where it is of none."""
    low = written.lower()
    return _WORDS.get(low) or _WORDS.get(low.removesuffix("s"))


def _link(text: str, seen: set[str]) -> str:
    def replace(found: re.Match[str]) -> str:
        word = find_term(found[0])
        if word is None or word in seen:
            return found[0]
        seen.add(word)
        title = escape(GLOSSARY[word])
        return f'<a class="term" href="#term-{_name_anchor(word)}" title="{title}">{found[0]}</a>'

    return _KNOWN.sub(replace, text)


def _name_anchor(word: str) -> str:
    return word.lower().replace(" ", "-")
