"""Forward-only work of K devices at once: scores, choices, embeddings, decoding.

Every pass takes rows device-major and cuts them into slices of bounded size, so that memory does
not grow with the number of exchanges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fleettune.adapters.patch import Patch
from fleettune.backbone.causal_lm import Backbone
from fleettune.jobs.jobs import (
    ChoiceJob,
    ChoiceResult,
    EmbedJob,
    EmbedResult,
    GenerateJob,
    GenerateResult,
    ScoreJob,
    ScoreResult,
    embedding_layers,
)
from fleettune.kernels.adapter_stack import apply_adapters, stack_patches
from fleettune.kernels.batches import (
    Supervision,
    pad_tokens,
    supervise,
    token_losses,
)

_TOKENS_PER_PASS = 8192
_SINK = 10.0
"""A token whose hidden norm is that many times its text's median draws attention to itself: it says
nothing of the text (massive activations, Sun et al. 2024)."""


@torch.no_grad()
def score_cohort(backbone: Backbone, jobs: Sequence[ScoreJob]) -> list[ScoreResult]:
    """Returns likelihoods and greedy hits of every device's examples."""
    nll = [[0.0] * len(job.examples) for job in jobs]
    hits = [[0] * len(job.examples) for job in jobs]
    longest = max(len(e.tokens) for job in jobs for e in job.examples)
    with _patched(backbone, [job.patch for job in jobs]):
        for part in slices([len(job.examples) for job in jobs], longest):
            rows = [jobs[d].examples[i] if i is not None else None for d, i in part]
            tokens = pad_tokens([(0,) if e is None else e.tokens for e in rows])
            hidden = backbone.layers(backbone.embed(tokens), 0, backbone.shapes.layers)
            supervision = supervise(rows)
            # the vocabulary head runs on the supervised positions only
            states = hidden[supervision.rows, supervision.positions]
            losses, first = token_losses(backbone, states, supervision.targets)
            total = _row_sums(losses, supervision, len(rows))
            right = _row_sums(first.float(), supervision, len(rows))
            for (device, index), row_nll, row_hits in zip(part, total, right, strict=True):
                if index is not None:
                    nll[device][index] = row_nll
                    hits[device][index] = int(row_hits)
    return [ScoreResult(nll=tuple(a), hits=tuple(b)) for a, b in zip(nll, hits, strict=True)]


@torch.no_grad()
def choose_cohort(backbone: Backbone, jobs: Sequence[ChoiceJob]) -> list[ChoiceResult]:
    """Returns every answer's likelihood, all answers of a prompt in one row.

    A row is the prompt with all answers behind it; each answer sees the prompt and itself only
    and its positions restart after the prompt, which equals scoring it alone.
    """
    answers = jobs[0].answers
    packed = sum(map(len, answers))
    longest = max(len(p) for job in jobs for p in job.prompts) + packed
    nll: list[list[tuple[float, ...]]] = [[() for _ in job.prompts] for job in jobs]
    with _patched(backbone, [job.patch for job in jobs]):
        for part in slices([len(job.prompts) for job in jobs], longest):
            prompts = [jobs[d].prompts[i] if i is not None else (0,) for d, i in part]
            values = _choice_losses(backbone, prompts, answers)
            for (device, index), row in zip(part, values, strict=True):
                if index is not None:
                    nll[device][index] = row
    return [ChoiceResult(nll=tuple(rows)) for rows in nll]


def _row_sums(values: Tensor, supervision: Supervision, rows: int) -> list[float]:
    """Returns the sum of the supervised values of every row."""
    return torch.zeros(rows).index_add(0, supervision.rows, values).cpu().numpy().tolist()


def _choice_losses(
    backbone: Backbone, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[tuple[float, ...]]:
    tail = [token for answer in answers for token in answer]
    inside = [offset for answer in answers for offset in range(len(answer))]
    owner = [number for number, answer in enumerate(answers, 1) for _ in answer]
    tokens = pad_tokens([[*prompt, *tail] for prompt in prompts])
    longest = tokens.shape[1]
    segments = torch.full((len(prompts), longest), -1)
    positions = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        size = len(prompt)
        segments[row, :size] = 0
        segments[row, size : size + len(tail)] = torch.tensor(owner)
        positions[row, :size] = torch.arange(size)
        positions[row, size : size + len(tail)] = size + torch.tensor(inside)
    earlier = torch.ones(longest, longest, dtype=torch.bool).tril()
    same = segments[:, :, None] == segments[:, None, :]
    mask = (earlier & (same | (segments[:, None, :] == 0)))[:, None]
    hidden = backbone.layers(
        backbone.embed(tokens), 0, backbone.shapes.layers, positions=positions, mask=mask
    )
    starts = torch.tensor([len(prompt) for prompt in prompts])[:, None]
    places = starts + torch.arange(len(tail))[None]
    # the first token of every answer is predicted by the last token of the prompt
    first = torch.tensor([offset == 0 for offset in inside])
    predictors = torch.where(first[None], starts - 1, places - 1)
    rows = torch.arange(len(prompts))[:, None].expand_as(places)
    states = hidden[rows, predictors].flatten(0, 1)
    losses, _ = token_losses(backbone, states, torch.tensor(tail).repeat(len(prompts)))
    losses = losses.view(len(prompts), -1)
    summed = torch.zeros(len(prompts), len(answers))
    summed.index_add_(1, torch.tensor(owner) - 1, losses)
    return [tuple(row) for row in summed.cpu().numpy().tolist()]


@torch.no_grad()
def embed_cohort(backbone: Backbone, jobs: Sequence[EmbedJob]) -> list[EmbedResult]:
    """Returns normalised means of middle hidden states, and the entropy of their norms.

    All jobs share `skip`.
    """
    skip = jobs[0].skip
    found: list[list[Any]] = [[None] * len(job.prompts) for job in jobs]
    longest = max(len(p) for job in jobs for p in job.prompts)
    with _patched(backbone, [job.patch for job in jobs]):
        for part in slices([len(job.prompts) for job in jobs], longest):
            prompts = [jobs[d].prompts[i] if i is not None else (0,) for d, i in part]
            tokens = pad_tokens(prompts)
            lengths = torch.tensor([len(prompt) for prompt in prompts])
            place = torch.arange(tokens.shape[1])[None]
            real = place < lengths[:, None]
            hidden = backbone.layers(backbone.embed(tokens), 0, embedding_layers(backbone.shapes))
            meant = real & (place >= (lengths - 1).clamp(max=skip)[:, None])
            mean = (hidden.float() * meant[..., None]).sum(1) / meant.sum(1)[:, None]
            entropy, counted = norm_entropy(hidden.float().square().sum(2).sqrt(), real)
            rows = zip(functional.normalize(mean), entropy, counted, strict=True)
            for (device, index), (vector, nats, count) in zip(part, rows, strict=True):
                if index is not None:
                    found[device][index] = vector.cpu().numpy(), float(nats), int(count)
    return [_embedded(rows) for rows in found]


def _embedded(rows: Sequence[tuple[Any, float, int]]) -> EmbedResult:
    vectors, entropy, tokens = zip(*rows, strict=True)
    return EmbedResult(
        vectors=np.stack(vectors).astype(np.float32),
        entropy=np.array(entropy, dtype=np.float32),
        tokens=np.array(tokens, dtype=np.int64),
    )


def norm_entropy(norms: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Returns per row the entropy in nats of its normalised norms, and over how many tokens.

    Args:
        norms: ``(rows, positions)``, hidden norms.
        real: True where a position holds a token.
    """
    inner = real.clone()
    inner[:, 0] = False
    median = norms.masked_fill(~inner, torch.nan).nanmedian(dim=1, keepdim=True).values
    inner &= norms <= _SINK * median
    share = norms * inner
    share = share / share.sum(1, keepdim=True).clamp(min=1e-12)
    return -torch.xlogy(share, share).sum(1), inner.sum(1)


@torch.no_grad()
def generate_cohort(backbone: Backbone, jobs: Sequence[GenerateJob]) -> list[GenerateResult]:
    """Returns continuations; all jobs share `new_tokens`, `stop` and `temperature`."""
    found: list[list[tuple[int, ...]]] = [[() for _ in job.prompts] for job in jobs]
    longest = max(len(p) for job in jobs for p in job.prompts) + jobs[0].new_tokens
    with _patched(backbone, [job.patch for job in jobs]):
        for part in slices([len(job.prompts) for job in jobs], longest):
            prompts = [jobs[d].prompts[i] if i is not None else (0,) for d, i in part]
            seeds = [jobs[d].seeds[i] if i is not None and jobs[d].seeds else None for d, i in part]
            decoded = _decode(backbone, prompts, seeds, jobs[0])
            for (device, index), tokens in zip(part, decoded, strict=True):
                if index is not None:
                    found[device][index] = tokens
    return [GenerateResult(tokens=tuple(rows)) for rows in found]


def _decode(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int | None],
    like: GenerateJob,
) -> list[tuple[int, ...]]:
    """Returns the tokens after every prompt, without the stop token, as jobs like `like` ask."""
    stop = like.stop
    draw = [make_gumbel_sampler(seeds, like.temperature)] if like.temperature else []
    width = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), width, dtype=torch.long)
    real = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):  # decoding appends on the right, so padding is left
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        real[row, width - len(prompt) :] = 1
    out = backbone.model.generate(
        input_ids=tokens,
        attention_mask=real,
        max_new_tokens=like.new_tokens,
        do_sample=False,
        logits_processor=draw,
        pad_token_id=stop,
        eos_token_id=stop,
    )[:, width:].tolist()
    return [tuple(row[: row.index(stop)] if stop in row else row) for row in out]


def make_gumbel_sampler(
    seeds: Sequence[int | None], temperature: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns what turns the next token's logits into scores whose maximum is a sample.

    The maximum of ``logits / T + g`` with independent standard Gumbel noise ``g`` is distributed as
    ``softmax(logits / T)`` (Gumbel 1954; Maddison et al. 2014, arXiv:1411.0030). Every row draws
    its noise from its own generator, once per token of the vocabulary and step.

    Args:
        seeds: Key of each row's generator, None for a row that is padding.
        temperature: Above 0.
    """
    rows = [None if seed is None else np.random.default_rng(seed) for seed in seeds]

    def sample(tokens: Tensor, logits: Tensor) -> Tensor:
        """Returns scores, ``(rows, vocabulary)``; the tokens so far do not matter."""
        size = logits.shape[-1]
        noise = np.stack([np.zeros(size) if rng is None else rng.gumbel(size=size) for rng in rows])
        return logits.double() / temperature + torch.as_tensor(noise, device=logits.device)

    return sample


def _patched(backbone: Backbone, patches: Sequence[Patch | None]) -> AbstractContextManager[None]:
    """Applies the patches; jobs with and without a patch never share a pass (see `cohort`)."""
    real = [patch.untie() for patch in patches if patch is not None]
    return apply_adapters(backbone, stack_patches(real, backbone)) if real else nullcontext()


def slices(counts: Sequence[int], longest: int) -> Iterator[list[tuple[int, int | None]]]:
    """Yields (device, index) pairs, device-major, equal numbers per device, None as padding."""
    per_device = max(1, _TOKENS_PER_PASS // (len(counts) * longest))
    for start in range(0, max(counts), per_device):
        width = min(per_device, max(counts) - start)
        yield [
            (device, index if index < count else None)
            for device, count in enumerate(counts)
            for index in range(start, start + width)
        ]
