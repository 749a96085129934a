"""Warm start: which of a catalogue's patches a device starts from, found without sending anything.

The device answers its own questions with the unpersonalised release (or takes plain answers in the
manifest to like questions, and decodes nothing), summarises how its user's preferred answers
differ, and places that on the downloaded words: z*. The nearest entry is taken if it is near
enough, else the two whose non-negative sum is nearest, else it starts from scratch (XPerT,
docs/methods.md#nearest-entry-or-sum-of-two). z* is a local value: what leaves the device is
`Start.wanted`, digests of patches, as for any
other download.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clients.work.facts import Facts
from clients.work.stage_work import embed_work
from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import merge_patches, nonnegative_pair
from fleettune.catalogue.decomposition import Floats
from fleettune.catalogue.explanation import Cosine, Distance
from fleettune.catalogue.manifest import CatalogueManifest
from fleettune.catalogue.similar_questions import likest
from fleettune.catalogue.style_vectors import Pair
from fleettune.cost.ledger import Stage
from fleettune.cost.work import Work, decode_work, forward_work
from fleettune.cost.workload import Entry, Phase, computing, moving, transferring
from fleettune.data.exchanges import Exchange
from fleettune.data.tokens import open_encoder
from fleettune.jobs.jobs import Compute, GenerateJob
from fleettune.releases.manifest import Manifest

ANSWERS = ("own", "like", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """How a device chooses its start.

    Attributes:
        distance: Between coordinates.
        single_within: Largest distance of one entry that is taken as it is.
        merged_within: Largest distance of the sum of two; beyond it, scratch.
        exchanges: Most exchanges that are looked at, newest first.
        new_tokens: Longest answer of the release, in tokens.
        answers: What the user's answers are compared with: ``own``, the release's to the same
            questions; ``like``, the manifest's plain answers to the questions that share most
            words (`fleettune.catalogue.similar_questions`); ``any``, those to any questions. The
            last two decode nothing.
    """

    distance: Distance = field(default_factory=Cosine)
    single_within: float = 0.4
    merged_within: float = 0.6
    exchanges: int = 40
    new_tokens: int = 48
    answers: str = "own"

    def __post_init__(self) -> None:
        if self.answers not in ANSWERS:
            raise ValueError(f"warm_start.answers must be one of {ANSWERS}, got {self.answers!r}")
        for name in ("single_within", "merged_within"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"warm_start.{name} must be >= 0, got {getattr(self, name)}")
        for name in ("exchanges", "new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"warm_start.{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a device starts from.

    Attributes:
        kind: single, merged or scratch.
        entries: Numbers of the entries in the manifest; none from scratch.
        weights: Their weights; 1 for a patch that is taken as it is.
        wanted: Digests of their patches: all that the device asks the server for.
        distance: Of what it starts from, or of the nearest sum from scratch.
    """

    kind: str
    entries: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    wanted: tuple[str, ...] = ()
    distance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """A user among a catalogue's words; stays on the device.

    Attributes:
        point: z*, ``(words,)``.
        points: Every exchange alone, ``(exchanges, words)``.
        pairs: The user's exchanges beside plain answers.
        answered: True if the device generated those.
    """

    point: Floats
    points: Floats
    pairs: tuple[Pair, ...]
    answered: bool


def place_user(
    exchanges: Sequence[Exchange],
    manifest: CatalogueManifest,
    release: Manifest,
    how: WarmStart,
    compute: Compute,
) -> Placed:
    """Returns where a device's own exchanges stand among the words.

    Raises:
        ValueError: If there is no exchange, or the catalogue is about another release.
    """
    manifest.check_release(release)
    if not exchanges:
        raise ValueError("a warm start needs at least 1 exchange of the user, got 0")
    own = exchanges[-how.exchanges :]
    answered = how.answers == "own"
    pairs = _paired(own, _answers(own, release, how, compute)) if answered else ()
    if not answered:
        pairs = _beside_plain(own, manifest, likes=how.answers == "like")
    vectors = manifest.summariser.vectors(pairs, release, compute)
    likes = how.answers == "like"
    return Placed(
        point=manifest.place(vectors, likes=likes),
        points=manifest.place_each(vectors, len(own), likes=likes),
        pairs=pairs,
        answered=answered,
    )


def choose_start(point: Floats, manifest: CatalogueManifest, how: WarmStart) -> Start:
    """Returns the nearest entry, the nearest sum of two, or scratch; ties go to the first entry.

    Weights of a sum are brought to a total of at most 1.
    """
    places = manifest.compared(likes=how.answers == "like")
    apart = how.distance.to(point, places)
    nearest = int(np.argmin(apart))
    if apart[nearest] <= how.single_within:
        return _start("single", manifest, (nearest,), (1.0,), float(apart[nearest]))
    best = _start("scratch", manifest, (), (), float(apart[nearest]))
    for one, other in itertools.combinations(range(len(places)), 2):
        a, b, _ = nonnegative_pair(places[one], places[other], point)
        if not (a > 0 and b > 0):
            continue
        # a patch taken further than it was tuned is no patch of that style; the mixture stays
        longest = max(1.0, a + b)
        a, b = a / longest, b / longest
        added = a * places[one] + b * places[other]
        distance = _to_sum(point, added, places, how.distance)
        if distance < best.distance or not best.entries:
            best = _start("merged", manifest, (one, other), (a, b), distance)
    if best.entries and best.distance <= how.merged_within:
        return best
    return _start("scratch", manifest, (), (), best.distance)


def assemble(start: Start, patches: Sequence[Patch], rank: int, alpha: float) -> Patch | None:
    """Returns the patch to start from, at the device's rank; None from scratch.

    Args:
        start: What was chosen.
        patches: Its entries' patches, in their order.
        rank: Rank of the device's adapters.
        alpha: Their alpha.
    """
    if start.kind == "scratch":
        return None
    ranks = {item for patch in patches for item in patch.ranks.values()}
    whole = start.kind == "single" and start.weights == (1.0,)
    if whole and ranks == {rank} and patches[0].alpha == alpha:
        return patches[0]
    return merge_patches(patches, start.weights, rank, alpha)


def selection_work(
    facts: Facts,
    release: Manifest,
    manifest: CatalogueManifest,
    placed: Placed,
    size_bytes: int,
    held: str = "",
) -> list[Entry]:
    """Returns what the choice asks of the device, whatever the catalogue's size but its manifest.

    Transfer and storage of the manifest and, the first time, of a model that the summariser reads
    with beside the release; the release's answers to the user's questions; the passes of the
    summariser. Distances are a few thousand multiplications and left out.

    Args:
        facts: The device.
        release: What it holds.
        manifest: The catalogue.
        placed: The user among its words.
        size_bytes: Bytes of the manifest.
        held: Digest of the model beside the release that it has already; empty without one.
    """
    shapes, weight = facts.priced.shapes(release.shapes), facts.priced.bytes_per_weight
    encoder = facts.encoder(release)
    prefill, decode, embedded = Work(), Work(), Work()
    for pair in placed.pairs if placed.answered else ():
        prompt = facts.priced.tokens(len(encoder.request(pair.question)))
        written = facts.priced.tokens(len(encoder.ids(pair.before)) + 1)
        prefill += forward_work(shapes, [prompt], 1, {}, weight)
        decode += decode_work(shapes, prompt, written, {}, weight)
    model = manifest.summariser.model
    lengths = [len(tokens) for tokens in manifest.summariser.reads(placed.pairs, release)]
    if model is not None:
        embedded = model.work(lengths)
        size_bytes += 0 if model.digest == held else model.size_bytes
    elif lengths:
        _, _, amount = embed_work(facts, release, lengths)[0]
        embedded = Work(flop=amount.flop, traffic_bytes=amount.moved_bytes)
    return [
        (Stage.DOWNLOAD, Phase.RECEIVE, transferring(size_bytes)),
        (Stage.DOWNLOAD, Phase.WRITE, moving(size_bytes)),
        (Stage.CHECK, Phase.PREFILL, computing(prefill + embedded)),
        (Stage.CHECK, Phase.DECODE, computing(decode)),
    ]


def download_work(facts: Facts, release: Manifest, patches: Sequence[Patch]) -> list[Entry]:
    """Returns the transfers of patches and their way to storage, each as large as it is priced."""
    found: list[Entry] = []
    for patch in patches:
        size_bytes = facts.priced.patch_bytes(release.shapes, patch.ranks, patch.size_bytes)
        found.append((Stage.DOWNLOAD, Phase.RECEIVE, transferring(size_bytes)))
        found.append((Stage.DOWNLOAD, Phase.WRITE, moving(size_bytes)))
    return found


def _paired(own: Sequence[Exchange], plain: Sequence[str]) -> tuple[Pair, ...]:
    return tuple(
        Pair(question=e.question, before=plain[number % len(plain)], after=e.response)
        for number, e in enumerate(own)
    )


def _beside_plain(
    own: Sequence[Exchange], manifest: CatalogueManifest, *, likes: bool
) -> tuple[Pair, ...]:
    """Returns the user's answers beside the manifest's: to like questions, or to any."""
    if not manifest.plain or (likes and not manifest.questions):
        raise ValueError("a warm start without answers needs plain ones in the manifest, got none")
    if not likes:
        return _paired(own, manifest.plain)
    return tuple(
        Pair(question=e.question, before=manifest.plain[place], after=e.response)
        for e in own
        for place in likest(e.question, manifest.questions)
    )


def _answers(
    own: Sequence[Exchange], release: Manifest, how: WarmStart, compute: Compute
) -> tuple[str, ...]:
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    job = GenerateJob(
        release=release.path,
        patch=None,
        prompts=tuple(encoder.request(exchange.question) for exchange in own),
        new_tokens=how.new_tokens,
        stop=encoder.stop,
    )
    return tuple(encoder.text(tokens) for tokens in compute.generate(job).tokens)


def _to_sum(point: Floats, added: Floats, places: Floats, distance: Distance) -> float:
    # with its mirror image beside it, the mean that distances are relative to stays where it was
    middle = places.mean(axis=0)
    beside = np.vstack([added, 2 * middle - added])
    return float(distance.to(point, beside)[0])


def _start(
    kind: str,
    manifest: CatalogueManifest,
    entries: tuple[int, ...],
    weights: tuple[float, ...],
    distance: float,
) -> Start:
    wanted = tuple(manifest.entries[entry].digest for entry in entries)
    return Start(kind=kind, entries=entries, weights=weights, wanted=wanted, distance=distance)
