"""Placing: where a user stands among a catalogue's words, found without sending anything.

The device takes the plain answers in the manifest to like questions and decodes nothing, or answers
its own questions with the unpersonalised release. It summarises how its user's preferred answers
differ from those and places that on the downloaded words: the point is z*
(docs/methods.md#nearest-entry-or-sum-of-two). z* stays on the device; what leaves it is
`Start.wanted`, digests of patches, as for any download.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.start.rules import FoundStart, StartContext
from clients.work.facts import Facts
from clients.work.stage_work import embed_work
from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import merge_patches
from fleettune.catalogue.decomposition import Floats
from fleettune.catalogue.manifest import CatalogueManifest
from fleettune.catalogue.similar_questions import most_similar
from fleettune.catalogue.style_vectors import Pair
from fleettune.cost.ledger import Stage
from fleettune.cost.work import Work, decode_work, forward_work
from fleettune.cost.workload import Entry, Phase, computing, moving, transferring
from fleettune.data.exchanges import Exchange
from fleettune.data.tokens import open_encoder
from fleettune.jobs.jobs import Compute, GenerateJob
from fleettune.releases.manifest import Manifest

OWN, LIKE = "own", "like"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a user's answers are compared with.

    Attributes:
        exchanges: Most exchanges that are compared, newest first.
        new_tokens: Longest answer of the release, in tokens.
        answers: ``own``, the release's answers to the same questions; ``like``, the manifest's
            plain answers to the questions that share most words
            (`fleettune.catalogue.similar_questions`), for which nothing is decoded.

    Raises:
        ValueError: If a value breaks its rule.
    """

    exchanges: int
    new_tokens: int
    answers: str

    def __post_init__(self) -> None:
        if self.answers not in (OWN, LIKE):
            raise ValueError(f"start.answers must be one of {(OWN, LIKE)}, got {self.answers!r}")
        for name in ("exchanges", "new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"start.{name} must be >= 1, got {getattr(self, name)}")

    @property
    def likes(self) -> bool:
        """True if the user is compared with plain answers to like questions."""
        return self.answers == LIKE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedUser:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Which entries a device starts from; none: from scratch.

    Attributes:
        entries: Numbers of the entries in the manifest.
        weights: Their weights; 1 for a patch that is taken as it is.
        wanted: Digests of their patches: all that the device asks the server for.
        distance: Of what it starts from, or of the nearest sum from scratch.
    """

    entries: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    wanted: tuple[str, ...] = ()
    distance: float = 0.0


def place_user(
    exchanges: Sequence[Exchange],
    manifest: CatalogueManifest,
    release: Manifest,
    how: Comparison,
    compute: Compute,
) -> PlacedUser:
    """Returns where a device's own exchanges stand among the words.

    Raises:
        ValueError: If there is no exchange, or the catalogue is about another release.
    """
    manifest.check_release(release)
    if not exchanges:
        raise ValueError("a warm start needs at least 1 exchange of the user, got 0")
    own = exchanges[-how.exchanges :]
    if how.likes:
        pairs = _beside_plain(own, manifest)
    else:
        pairs = _beside_own(own, release, how.new_tokens, compute)
    vectors = manifest.summariser.vectors(pairs, release, compute)
    return PlacedUser(
        point=manifest.place(vectors, likes=how.likes),
        points=manifest.place_each(vectors, len(own), likes=how.likes),
        pairs=pairs,
        answered=not how.likes,
    )


def fetch_start(context: StartContext, placed: PlacedUser, start: Start) -> FoundStart:
    """Returns a start with its patches, and what placing the user and fetching them asked."""
    facts, release, placement = context.facts, context.release, context.placement
    manifest, patches = context.offer.manifest, context.offer.patches(start.wanted)
    work = comparison_work(facts, release, manifest, placed, len(context.offer.data))
    return FoundStart(
        names=tuple(manifest.entries[entry].name for entry in start.entries),
        patch=assemble(start, patches, placement.rank, placement.alpha),
        entries=(*work, *download_work(facts, release, patches)),
    )


def assemble(start: Start, patches: Sequence[Patch], rank: int, alpha: float) -> Patch | None:
    """Returns the patch to start from, at the device's rank; None from scratch.

    Args:
        start: What was chosen.
        patches: Its entries' patches, in their order.
        rank: Rank of the device's adapters.
        alpha: Their alpha.
    """
    if not start.entries:
        return None
    ranks = {item for patch in patches for item in patch.ranks.values()}
    if start.weights == (1.0,) and ranks == {rank} and patches[0].alpha == alpha:
        return patches[0]
    return merge_patches(patches, start.weights, rank, alpha)


def comparison_work(
    facts: Facts,
    release: Manifest,
    manifest: CatalogueManifest,
    placed: PlacedUser,
    size_bytes: int,
) -> list[Entry]:
    """Returns what placing a user asks of the device, whatever the catalogue's size.

    Transfer and storage of the manifest; the release's answers to the user's questions; the passes
    of the summariser. Distances are a few thousand multiplications and left out.

    Args:
        facts: The device.
        release: What it holds.
        manifest: The catalogue.
        placed: The user among its words.
        size_bytes: Bytes of the manifest.
    """
    shapes, weight = facts.priced.shapes(release.shapes), facts.priced.bytes_per_weight
    encoder = facts.encoder(release)
    prefill, decode, embedded = Work(), Work(), Work()
    for pair in placed.pairs if placed.answered else ():
        prompt = facts.priced.tokens(len(encoder.request(pair.question)))
        written = facts.priced.tokens(len(encoder.ids(pair.before)) + 1)
        prefill += forward_work(shapes, [prompt], 1, {}, weight)
        decode += decode_work(shapes, prompt, written, {}, weight)
    lengths = [len(tokens) for tokens in manifest.summariser.reads(placed.pairs, release)]
    if lengths:
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


def _beside_plain(own: Sequence[Exchange], manifest: CatalogueManifest) -> tuple[Pair, ...]:
    """Returns the user's answers beside the manifest's to like questions."""
    if not manifest.plain or not manifest.questions:
        raise ValueError("a warm start without answers needs plain ones in the manifest, got none")
    return tuple(
        Pair(question=e.question, before=manifest.plain[place], after=e.response)
        for e in own
        for place in most_similar(e.question, manifest.questions)
    )


def _beside_own(
    own: Sequence[Exchange], release: Manifest, new_tokens: int, compute: Compute
) -> tuple[Pair, ...]:
    """Returns the user's answers beside the release's to the same questions."""
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    job = GenerateJob(
        release=release.path,
        patch=None,
        prompts=tuple(encoder.request(exchange.question) for exchange in own),
        new_tokens=new_tokens,
        stop=encoder.stop,
    )
    written = compute.generate(job).tokens
    return tuple(
        Pair(question=e.question, before=encoder.text(tokens), after=e.response)
        for e, tokens in zip(own, written, strict=True)
    )
