"""Jobs: what a device asks of its own processor, as values, with their results and digests.

Device code is straight-line and calls a `Compute`. On a device (or in stock Flower) the call
runs at once; in a cohort the engine suspends the device, collects the jobs of all its neighbours
and executes those of one kind and release as one batched pass.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.patch import Patch
from fleettune.data.tokens import Example
from fleettune.shapes import Shapes, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneJob:
    """Train a patch.

    Attributes:
        release: Folder of the release.
        start: The patch to start from; the result has the same sites and ranks.
        batches: The examples of every optimizer step.
        learning_rate: AdamW's learning rate, without weight decay.
        clip: Largest norm of the device's whole gradient.
        keep_at: Numbers of steps, ascending, after which the result keeps a snapshot.
        frozen_a: True if A stays as it is and B alone trains.

    Raises:
        ValueError: If `keep_at` does not ascend within the steps.
    """

    release: str
    start: Patch
    batches: tuple[tuple[Example, ...], ...]
    learning_rate: float
    clip: float
    keep_at: tuple[int, ...] = ()
    frozen_a: bool = False

    def __post_init__(self) -> None:
        allowed = range(1, len(self.batches) + 1)
        if sorted(set(self.keep_at)) != list(self.keep_at) or not {*self.keep_at} <= {*allowed}:
            raise ValueError(
                f"keep_at must ascend from 1 to {len(self.batches)} steps, got {self.keep_at}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """A trained patch and the mean supervised loss of its first and last step, in nats.

    Attributes:
        patch: After the last step.
        first_loss: Of the first step.
        last_loss: Of the last one.
        snapshots: The patch as it was at every `TuneJob.keep_at`.
    """

    patch: Patch
    first_loss: float
    last_loss: float
    snapshots: tuple[Patch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob:
    """Measure by how much an adapter at every candidate site would lower the loss, untrained.

    Attributes:
        release: Folder of the release.
        probe: The candidate sites, each with a fixed random A and a B of zeros.
        batches: The examples of every pass.

    Raises:
        ValueError: If there is no site or example to probe with, or a B is not zero.
    """

    release: str
    probe: Patch
    batches: tuple[tuple[Example, ...], ...]

    def __post_init__(self) -> None:
        if not self.probe.factors:
            raise ValueError("a probe must have a candidate site, got none")
        if not self.batches or not all(self.batches):
            raise ValueError(
                "a probe's batches must each hold an example, got sizes "
                f"{[len(batch) for batch in self.batches]}"
            )
        if self.probe.ties:
            raise ValueError("a probe must have factors of every site's own, got ties")
        trained = [str(site) for site, item in self.probe.factors.items() if item.b.any()]
        if trained:
            raise ValueError(f"a probe's B must be zero at every site, is not at {trained}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeResult:
    """Gradient and benefit of every candidate site.

    The loss of a batch is the mean over its supervised tokens, in nats. Gradients carry the probe's
    ``alpha / rank``, as those of an adapter in training do.

    Attributes:
        benefit: Squared Frobenius norm of the site's gradient.
        gradients: Gradient of the loss to B, summed over the batches, ``(n_out, rank)``.
    """

    benefit: Mapping[Site, float]
    gradients: Mapping[Site, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputNormJob:
    """Measure the squared norm of every adapter's output.

    Attributes:
        release: Folder of the release.
        patch: The adapters.
        examples: What they see.

    Raises:
        ValueError: If there is no adapter or no example.
    """

    release: str
    patch: Patch
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        if not self.patch.ranks or not self.examples:
            raise ValueError(
                "outputs need an adapter and an example, got "
                f"{len(self.patch.ranks)} adapters and {len(self.examples)} examples"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutputNormResult:
    """By site: ``sum ||dW x||^2`` over all tokens of the examples.

    Source: LoRA-drop, docs/methods.md#lora-drop.
    """

    squares: Mapping[Site, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreJob:
    """Measure how likely a model finds the supervised tokens of examples."""

    release: str
    patch: Patch | None
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreResult:
    """Per example: summed negative log-likelihood in nats, and greedy hits.

    Attributes:
        nll: Sum over the supervised tokens.
        hits: Supervised tokens that are the model's own first choice given those before; all of
            them exactly when greedy decoding would reproduce the answer.
    """

    nll: tuple[float, ...]
    hits: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceJob:
    """Measure how likely a model finds every answer of a closed set after each prompt."""

    release: str
    patch: Patch | None
    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceResult:
    """Negative log-likelihood in nats, ``nll[prompt][answer]``."""

    nll: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedJob:
    """Embed texts: the mean of the middle layer's hidden state over the text's tokens.

    Attributes:
        release: Folder of the release.
        patch: The patch in use, None without one.
        prompts: The tokens of every text.
        skip: Leading tokens that the mean leaves out where a text has more than these.
    """

    release: str
    patch: Patch | None
    prompts: tuple[tuple[int, ...], ...]
    skip: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedResult:
    """Embeddings, and how evenly the tokens' hidden norms are spread.

    Attributes:
        vectors: ``(prompts, hidden)``, each of norm 1.
        entropy: ``(prompts,)``, entropy in nats of the norms divided by their sum, without the
            first token of a text and others of outlying norm.
        tokens: ``(prompts,)``, how many tokens that entropy is over.
    """

    vectors: NDArray[np.float32]
    entropy: NDArray[np.float32]
    tokens: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateJob:
    """Decode from prompts until the stop token or `new_tokens`.

    Attributes:
        release: Folder of the release.
        patch: Applied beside the frozen weights, None without one.
        prompts: What to go on from.
        new_tokens: Most tokens decoded after a prompt.
        stop: Token that ends a text.
        temperature: 0 decodes greedily; above, tokens are drawn from ``softmax(logits / T)``.
        seeds: Key of each prompt's own random stream, where tokens are drawn: what a prompt
            becomes depends on its key, never on who shares its pass.

    Raises:
        ValueError: If the temperature is negative, or drawing lacks a seed per prompt.
    """

    release: str
    patch: Patch | None
    prompts: tuple[tuple[int, ...], ...]
    new_tokens: int
    stop: int
    temperature: float = 0.0
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be finite and >= 0, got {self.temperature}")
        needed = len(self.prompts) if self.temperature else 0
        if len(self.seeds) != needed:
            raise ValueError(
                f"at temperature {self.temperature} a job of {len(self.prompts)} prompts must have "
                f"{needed} seeds, got {len(self.seeds)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateResult:
    """Decoded tokens of every prompt, without the stop token."""

    tokens: tuple[tuple[int, ...], ...]


Job = TuneJob | ProbeJob | ScoreJob | ChoiceJob | EmbedJob | GenerateJob | OutputNormJob
Result = (
    TuneResult
    | ProbeResult
    | ScoreResult
    | ChoiceResult
    | EmbedResult
    | GenerateResult
    | OutputNormResult
)


@dataclass(frozen=True, slots=True)
class Compute:
    """A processor: how a job is run, with the result type that follows from the job's.

    Attributes:
        run: Runs one job; suspends the caller where the caller lives in a cohort.
    """

    run: Callable[[Job], Result]

    def tune(self, job: TuneJob) -> TuneResult:
        """Returns the trained patch."""
        return cast(TuneResult, self.run(job))

    def probe(self, job: ProbeJob) -> ProbeResult:
        """Returns the gradient and the benefit of every candidate site."""
        return cast(ProbeResult, self.run(job))

    def measure_outputs(self, job: OutputNormJob) -> OutputNormResult:
        """Returns the squared norm of every adapter's output."""
        return cast(OutputNormResult, self.run(job))

    def score(self, job: ScoreJob) -> ScoreResult:
        """Returns likelihoods and greedy hits."""
        return cast(ScoreResult, self.run(job))

    def choose(self, job: ChoiceJob) -> ChoiceResult:
        """Returns the likelihood of every answer."""
        return cast(ChoiceResult, self.run(job))

    def embed(self, job: EmbedJob) -> EmbedResult:
        """Returns embeddings."""
        return cast(EmbedResult, self.run(job))

    def generate(self, job: GenerateJob) -> GenerateResult:
        """Returns decoded tokens."""
        return cast(GenerateResult, self.run(job))


def embedding_layers(shapes: Shapes) -> int:
    """Returns how many layers an embedding runs: the lower half, at half the joules of a pass."""
    return max(1, shapes.layers // 2)


def job_digest(job: Job) -> str:
    """Returns the SHA-256 of a job's inputs: equal jobs have equal results."""
    digest = hashlib.sha256(f"{type(job).__name__} {job.release}".encode())
    match job:
        case TuneJob():
            # the trained patch names its release, so the starting one's belongs to the inputs
            digest.update(f"{job.start.release} {job.start.digest()}".encode())
            digest.update(f"{job.learning_rate} {job.clip} {job.frozen_a}".encode())
            digest.update(_batches(job.batches) + repr(job.keep_at).encode())
        case ProbeJob():
            digest.update(_patch(job.probe) + _batches(job.batches))
        case ScoreJob() | OutputNormJob():
            digest.update(_patch(job.patch) + _examples(job.examples))
        case ChoiceJob():
            digest.update(_patch(job.patch) + repr((job.prompts, job.answers)).encode())
        case EmbedJob():
            digest.update(_patch(job.patch) + repr((job.prompts, job.skip)).encode())
        case GenerateJob():
            digest.update(_patch(job.patch) + repr(job.prompts).encode())
            digest.update(f"{job.new_tokens} {job.stop}".encode())
            digest.update(f"{job.temperature} {job.seeds}".encode())
    return digest.hexdigest()


def _patch(patch: Patch | None) -> bytes:
    return b"none" if patch is None else patch.digest().encode()


def _examples(examples: Sequence[Example]) -> bytes:
    return repr([(example.tokens, example.prompt) for example in examples]).encode()


def _batches(batches: Sequence[Sequence[Example]]) -> bytes:
    return b"".join(map(_examples, batches))
