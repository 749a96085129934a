"""Returns the work that each stage of a night asks of the device, at the shapes that are priced.

Nothing here computes anything of the model; the functions only count. Padding is the host's work
and is not counted; the prefix cache that is counted is the device's own
(docs/methods.md#prefix-cache), not the
host's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clients.work.facts import Facts
from fleettune.adapters.patch import Patch
from fleettune.cost.ledger import Stage
from fleettune.cost.work import Work, backward_work, decode_work, forward_work
from fleettune.cost.workload import Entry, Phase, computing, moving, transferring
from fleettune.data.tokens import Example
from fleettune.deltas.frames import payload_bytes
from fleettune.jobs.jobs import ProbeJob, embedding_layers
from fleettune.messages.flower_records import STATISTICS_BYTES
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Ranks, Shapes, Site

Batches = Sequence[Sequence[Example]]
Writings = Sequence[tuple[int, int]]


def ranks_of(patch: Patch | None) -> Ranks:
    """Returns the rank at every site of a patch; none without one."""
    return {} if patch is None else patch.ranks


def score_work(
    facts: Facts, release: Manifest, ranks: Ranks, examples: Sequence[Example]
) -> list[Entry]:
    """Returns one forward pass over examples, the head on their supervised tokens only."""
    if not examples:
        return []
    lengths = facts.priced.lengths([len(example.tokens) for example in examples])
    head = min(sum(lengths), facts.priced.tokens(sum(e.supervised for e in examples)))
    shapes, there = facts.priced.shapes(release.shapes), facts.priced.ranks(release.shapes, ranks)
    work = forward_work(shapes, lengths, head, there, facts.priced.bytes_per_weight)
    return [(Stage.CHECK, Phase.PREFILL, computing(work))]


def probe_work(facts: Facts, release: Manifest, jobs: Sequence[ProbeJob]) -> list[Entry]:
    """Returns the passes of probes: one forward and one backward per batch.

    Counted as training their adapters; the gradient of A, which a probe has no use for, is in it.
    """
    return [
        entry
        for job in jobs
        for entry in placing_work(facts, release, job.probe.ranks, job.batches)
    ]


def placing_work(facts: Facts, release: Manifest, ranks: Ranks, batches: Batches) -> list[Entry]:
    """Returns the passes of training steps that a placement is decided by."""
    entries = tune_work(facts, release, ranks, batches, cached=False)
    return [(Stage.PROBE, phase, amount) for _, phase, amount in entries]


def tune_work(
    facts: Facts, release: Manifest, ranks: Ranks, batches: Batches, cached: bool
) -> list[Entry]:
    """Returns the passes of a tune.

    Args:
        facts: The device.
        release: What it tunes.
        ranks: The adapters that train, at simulated shapes.
        batches: The examples of every step.
        cached: True if the device keeps the hidden states at the cut: the layers below run once
            per example, their result is written once and read in every step.
    """
    shapes, there = facts.priced.shapes(release.shapes), facts.priced.ranks(release.shapes, ranks)
    cut = min(site.layer for site in there) if cached else 0
    upper = {Site(site.layer - cut, site.module): rank for site, rank in there.items()}
    above = replace(shapes, layers=shapes.layers - cut)
    weight = facts.priced.bytes_per_weight
    lengths: list[int] = []
    head = 0
    for batch in batches:
        lengths += (own := facts.priced.lengths([len(example.tokens) for example in batch]))
        head += min(sum(own), facts.priced.tokens(sum(e.supervised for e in batch)))
    tokens, steps = sum(lengths), len(batches)
    forward = forward_work(above, lengths, head, upper, weight, steps)
    backward = backward_work(above, lengths, head, upper, weight, steps)
    entries: list[Entry] = [(Stage.TUNE, Phase.BACKWARD, computing(backward))]
    if cut:
        distinct = dict.fromkeys(example for batch in batches for example in batch)
        lengths = facts.priced.lengths([len(example.tokens) for example in distinct])
        forward += forward_work(replace(shapes, layers=cut), lengths, 0, {}, weight)
        entries.append((Stage.TUNE, Phase.WRITE, moving(cache_bytes(shapes, sum(lengths)))))
        entries.append((Stage.TUNE, Phase.READ, moving(cache_bytes(shapes, tokens))))
    return [(Stage.TUNE, Phase.FORWARD, computing(forward)), *entries]


def validation_work(
    facts: Facts, release: Manifest, ranks: Ranks, held: Sequence[Example], how: tuple[int, bool]
) -> list[Entry]:
    """Returns the passes of a tune over what it holds out: forward, all examples in one pass.

    Args:
        facts: The device.
        release: What it tunes.
        ranks: The adapters, at simulated shapes.
        held: The held-out examples.
        how: How often, and whether hidden states at the cut are cached, as in `tune_work`.
    """
    times, cached = how
    if not held or not times:
        return []
    shapes, there = facts.priced.shapes(release.shapes), facts.priced.ranks(release.shapes, ranks)
    cut = min(site.layer for site in there) if cached else 0
    upper = {Site(site.layer - cut, site.module): rank for site, rank in there.items()}
    weight = facts.priced.bytes_per_weight
    lengths = facts.priced.lengths([len(example.tokens) for example in held])
    head = min(sum(lengths), facts.priced.tokens(sum(example.supervised for example in held)))
    above = replace(shapes, layers=shapes.layers - cut)
    forward = forward_work(above, lengths * times, head * times, upper, weight, times)
    entries: list[Entry] = []
    if cut:
        size_bytes = cache_bytes(shapes, sum(lengths))
        forward += forward_work(replace(shapes, layers=cut), lengths, 0, {}, weight)
        entries.append((Stage.TUNE, Phase.WRITE, moving(size_bytes)))
        entries.append((Stage.TUNE, Phase.READ, moving(size_bytes * times)))
    return [(Stage.TUNE, Phase.FORWARD, computing(forward)), *entries]


def cache_bytes(shapes: Shapes, tokens: int) -> int:
    """Returns the bytes of cached hidden states in half precision.

    Source: docs/methods.md#prefix-cache.
    """
    return 2 * shapes.hidden * tokens


def upload_work(
    facts: Facts, release: Manifest, change: Patch | None = None, frame: bytes = b""
) -> list[Entry]:
    """Returns the transfer of an adapter delta, where there is one, and statistics.

    Args:
        facts: The device.
        release: What it tuned.
        change: The delta.
        frame: The delta as it is sent; its header is among the bytes of the statistics.
    """
    size_bytes = 0.0
    if change is not None:
        own, sent = release.shapes, payload_bytes(frame)
        size_bytes = facts.priced.patch_bytes(own, change.ranks, sent, change.shared)
    return [(Stage.UPLOAD, Phase.SEND, transferring(size_bytes + STATISTICS_BYTES))]


def fleet_patch_work(facts: Facts, release: Manifest, sent: Patch) -> list[Entry]:
    """Returns the transfer of a fleet patch and its way to storage."""
    own, ranks = release.shapes, ranks_of(sent)
    size_bytes = facts.priced.patch_bytes(own, ranks, sent.size_bytes, sent.shared)
    return [
        (Stage.DOWNLOAD, Phase.RECEIVE, transferring(size_bytes)),
        (Stage.DOWNLOAD, Phase.WRITE, moving(size_bytes)),
    ]


def serve_work(
    facts: Facts,
    release: Manifest,
    patch: Patch | None,
    lived: Sequence[Example],
    context_tokens: float,
) -> list[Entry]:
    """Returns what the user's own questions of some days cost the device.

    Args:
        facts: The device.
        release: What it serves with.
        patch: Served unmerged beside the frozen weights.
        lived: The exchanges as examples: prompt read, answer written.
        context_tokens: Simulated tokens of retrieved exchanges put before every question; each
            question is then embedded first, to find them.
    """
    shapes = facts.priced.shapes(release.shapes)
    ranks = facts.priced.ranks(release.shapes, ranks_of(patch))
    prefill, decode, weight = Work(), Work(), facts.priced.bytes_per_weight
    for example in lived:
        room = max(example.prompt, release.max_tokens)
        prompt = facts.priced.tokens(min(example.prompt + round(context_tokens), room))
        prefill += forward_work(shapes, [prompt], 1, ranks, weight)
        decode += decode_work(
            shapes, prompt, facts.priced.tokens(example.supervised), ranks, weight
        )
    if context_tokens:
        prefill += _embedding(facts, release, [example.prompt for example in lived])
    return [
        (Stage.SERVE, Phase.PREFILL, computing(prefill)),
        (Stage.SERVE, Phase.DECODE, computing(decode)),
    ]


def synthesise_work(
    facts: Facts, release: Manifest, patch: Patch | None, writings: Writings
) -> list[Entry]:
    """Returns what writing texts costs the device.

    Every text is a pass of its own: its request is read again, also where several texts answer one
    request, and all its tokens are decoded, the one that ends it included.

    Args:
        facts: The device.
        release: What writes.
        patch: Applied unmerged beside the frozen weights.
        writings: Simulated tokens of the request and of the text, one pair per text.
    """
    shapes = facts.priced.shapes(release.shapes)
    ranks = facts.priced.ranks(release.shapes, ranks_of(patch))
    prefill, decode, weight = Work(), Work(), facts.priced.bytes_per_weight
    for request, written in writings:
        prompt = facts.priced.tokens(request)
        prefill += forward_work(shapes, [prompt], 1, ranks, weight)
        decode += decode_work(shapes, prompt, facts.priced.tokens(written), ranks, weight)
    return [
        (Stage.SYNTHESISE, Phase.PREFILL, computing(prefill)),
        (Stage.SYNTHESISE, Phase.DECODE, computing(decode)),
    ]


def embed_work(facts: Facts, release: Manifest, lengths: Sequence[int]) -> list[Entry]:
    """Returns the embeddings of new texts, given their simulated tokens."""
    return [(Stage.SELECT, Phase.PREFILL, computing(_embedding(facts, release, lengths)))]


def _embedding(facts: Facts, release: Manifest, lengths: Sequence[int]) -> Work:
    shapes = facts.priced.shapes(release.shapes)
    lower = replace(shapes, layers=embedding_layers(shapes))
    priced = facts.priced.lengths(lengths)
    return forward_work(lower, priced, 0, {}, facts.priced.bytes_per_weight) if priced else Work()
