"""Making of releases: trained on text of users outside the fleet, rewritten, or taken over.

A release's folder is named by the digest of everything that decides its weights: the parent's
files, the plan, the data, the template, the seed, our versions of recipe and generated world, and
the libraries that compute it. So it is made once and found again by content. An external release
stays where it lies.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fleettune.backbone.causal_lm import load_backbone
from fleettune.data.exchanges import Population
from fleettune.data.manners import MANNERS_VERSION, lean
from fleettune.data.personas import WORLD_VERSION
from fleettune.data.tokens import Encoder
from fleettune.data.vendor_text import CorpusMix, mix_corpus
from fleettune.releases.model_files import folder_digest
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES
from strategies.releases.given_files import corpus_rows, external_folder, plan_identity
from strategies.releases.rewritten import quantise, refresh, reparametrise
from strategies.releases.schedule import ReleasePlan
from strategies.releases.store import find_release, make_release, write_model

log = logging.getLogger(__name__)
STEPS_LOG = log.getChild("steps")
"""Every step of a training, for whoever shows how far it is; nothing of it reaches a run's log."""
STEPS_LOG.propagate = False

RECIPE_VERSION = 4
"""Part of every release's key: raised when the same plan makes other weights or another record."""
TRAINING_THREADS = 1
"""Threads that train a release, whatever the machine has: part of the bytes of its weights."""
FLOOR = 0.02
"""Share of the learning rate that is left at the end of the cosine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """Who makes releases, and from what.

    Attributes:
        store: Folder that holds all releases.
        population: Where text of users outside the fleet comes from.
        data: What identifies that population, for the key.
        seed: Key of the training's random streams.
    """

    store: Path
    population: Population
    data: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRelease:
    """A release in the store, with what its training showed.

    Attributes:
        folder: Its folder.
        digest: SHA-256 of the files that decide what it computes.
        loss_before: Mean training loss of the first steps, nats per token; None where nothing was
            trained.
        loss_after: Mean training loss of the last steps.
    """

    folder: Path
    digest: str
    loss_before: float | None
    loss_after: float | None


def ship_unchanged(folder: Path) -> TrainedRelease:
    """Returns a model that is released as it is."""
    digest = folder_digest(folder)
    return TrainedRelease(folder=folder, digest=digest, loss_before=None, loss_after=None)


@dataclass(frozen=True, slots=True)
class _Order:
    """One release that is to be made: how, by whom, with which tokens, and its version."""

    plan: ReleasePlan
    vendor: Vendor
    encoder: Encoder
    version: int

    @property
    def key(self) -> int:
        """Key of the release's random streams."""
        return self.vendor.seed * 1000 + self.version


def train_release(
    parent: TrainedRelease, plan: ReleasePlan, vendor: Vendor, encoder: Encoder, version: int
) -> TrainedRelease:
    """Returns the release that a plan makes from its parent, made or found in the store.

    Raises:
        ValueError: If an external model cannot follow, or the text is too short to train on.
    """
    if plan.kind == "external":
        return ship_unchanged(external_folder(plan, parent.folder))
    order = _Order(plan, vendor, encoder, version)
    folder = vendor.store / _folder_name(parent, order)
    if folder.exists():
        log.info("release %d (%s) is in the store", version, plan.name)

    def make(partial: Path) -> Mapping[str, Any]:
        began = time.monotonic()
        before, after = _make_into(partial, parent.folder, order)
        losses = "" if after is None else f", loss {before:.2f} to {after:.2f} nats per token"
        seconds = time.monotonic() - began
        log.info("release %d (%s) made in %.0f s%s", version, plan.name, seconds, losses)
        return {"loss_before": before, "loss_after": after, "plan": plan_identity(plan)}

    return _read_release(folder, make_release(folder, make))


def find_trained(
    parent: TrainedRelease, plan: ReleasePlan, vendor: Vendor, encoder: Encoder, version: int
) -> TrainedRelease | None:
    """Returns the release that a plan makes from its parent if it need not be trained; else None.

    Raises:
        ValueError: If what the store holds is damaged.
    """
    if plan.kind == "external":
        return ship_unchanged(external_folder(plan, parent.folder))
    folder = vendor.store / _folder_name(parent, _Order(plan, vendor, encoder, version))
    record = find_release(folder)
    return None if record is None else _read_release(folder, record)


def _read_release(folder: Path, record: Mapping[str, Any]) -> TrainedRelease:
    return TrainedRelease(
        folder=folder,
        digest=record["digest"],
        loss_before=record["loss_before"],
        loss_after=record["loss_after"],
    )


def _folder_name(parent: TrainedRelease, order: _Order) -> str:
    parts = {
        "recipe": RECIPE_VERSION,
        "world": [WORLD_VERSION, MANNERS_VERSION],
        "parent": parent.digest,
        "plan": plan_identity(order.plan),
        # who lives in the fleet is no part of a release that reads nobody's text
        "data": "" if order.plan.corpus else order.vendor.data,
        "seed": order.vendor.seed,
        "version": order.version,
        # text becomes tokens by the parent's tokenizer, which is in its digest, and these
        "template": asdict(order.encoder.template),
        "libraries": [version_of("torch"), version_of("transformers")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _make_into(folder: Path, parent: Path, order: _Order) -> tuple[float | None, float | None]:
    """Writes a release and returns its loss before and after, None where nothing was trained."""
    model, plan = load_backbone(parent).model, order.plan
    if plan.is_trained:
        losses: list[float] = []
        write_model(_train(model, order, losses), parent, folder)
        edge = max(1, len(losses) // 10)
        return sum(losses[:edge]) / edge, sum(losses[-edge:]) / edge
    if plan.kind == "reparametrised":
        reparametrise(model, plan.scale)
    else:
        quantise(model, plan.bits, embeddings=plan.embeddings)
    write_model(model, parent, folder)
    return None, None


def _train(model: Any, order: _Order, losses: list[float]) -> Any:  # noqa: ANN401 - transformers
    """Returns the model after a plan's training; notes the loss of every step in `losses`."""
    plan, text = order.plan, _corpus(order)

    def note(step: int, loss: float) -> bool:
        losses.append(loss)
        progress = {"progress": step + 1, "total": plan.steps}
        STEPS_LOG.debug("training release %d (%s)", order.version, plan.name, extra=progress)
        return True

    if plan.kind == "independent":
        refresh(model, order.key)
    model.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(TRAINING_THREADS)
    trained, parameters = _trainable(model, order)
    stretch = PretrainPlan(
        steps=plan.steps, learning_rate=plan.learning_rate, batch=plan.batch, window=plan.window
    )
    pretrain(trained, parameters, text, stretch, order.key, note)
    torch.set_num_threads(threads)
    return trained.merge_and_unload() if plan.kind == "low_rank" else trained


def _corpus(order: _Order) -> Tensor:
    """Returns the tokens that a release trains on, ``(tokens,)``."""
    plan, encoder = order.plan, order.encoder
    if plan.corpus:
        conversations = [[row] for row in corpus_rows(plan, order.key)]
    else:
        mix = CorpusMix(
            conversations=plan.conversations, paraphrases=plan.paraphrases, vendor=plan.vendor
        )
        people = lean(order.vendor.population, plan.leans, plan.about)
        outside = people.outside(plan.conversations, order.key)
        conversations = mix_corpus(outside, mix, order.key)
    return torch.tensor([token for one in conversations for token in encoder.conversation(one)])


def _trainable(model: Any, order: _Order) -> tuple[Any, Iterable[Tensor]]:  # noqa: ANN401
    """Returns the model and those of its parameters that a release trains; a LoRA for low rank."""
    plan = order.plan
    if plan.kind != "low_rank":
        for parameter in model.parameters():
            parameter.requires_grad_(requires_grad=True)
        return model, list(model.parameters())
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - seconds of import

    layers = model.config.num_hidden_layers
    config = LoraConfig(
        r=plan.rank,
        lora_alpha=2 * plan.rank,
        target_modules=[f"{module}_proj" for module in MODULES],
        layers_to_transform=list(range(max(0, layers - plan.top_layers), layers)),
        layers_pattern="layers",
    )
    with torch.random.fork_rng():  # pyright: ignore[reportUnknownMemberType] - torch's own type
        torch.default_generator.manual_seed(order.key)
        adapted = get_peft_model(model, config)
    return adapted, [p for p in adapted.parameters() if p.requires_grad]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainPlan:
    """One stretch of next-token training: AdamW, warm-up and cosine decay.

    Attributes:
        steps: Optimizer steps.
        learning_rate: Peak learning rate.
        batch: Windows per step.
        window: Tokens per window.
        warmup: Steps of linear warm-up.
        weight_decay: Decoupled weight decay.
    """

    steps: int
    learning_rate: float
    batch: int = 32
    window: int = 64
    warmup: int = 10
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"pretraining {name} must be >= 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"pretraining learning_rate must be > 0, got {self.learning_rate}")

    def rate(self, step: int) -> float:
        """Returns the learning rate of one step, counted from 0."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / self.steps)) + FLOOR
        return self.learning_rate * warm * decay


def pretrain(
    model: Any,  # noqa: ANN401 - a transformers model; its own types are too loose to name
    parameters: Iterable[Tensor],
    text: Tensor,
    plan: PretrainPlan,
    seed: int,
    on_step: Callable[[int, float], bool] = lambda _step, _loss: True,
) -> None:
    """Trains `parameters` of a causal language model in place on random windows of a stream.

    The loss is the next token's; gradients are clipped at norm 1. The pocket model's recipe and
    every later release use the same loop.

    Args:
        model: The causal language model.
        parameters: What to train, each with ``requires_grad``.
        text: Token ids, ``(tokens,)``.
        plan: Steps, rates and shapes.
        seed: Key of the windows' stream.
        on_step: Called with each step's number and loss; False stops early.

    Raises:
        ValueError: If the stream is shorter than one window.
    """
    if len(text) <= plan.window:
        raise ValueError(
            f"the training text must be longer than a window of {plan.window} tokens, "
            f"got {len(text)} tokens; give more conversations"
        )
    chosen = list(parameters)
    optimizer = torch.optim.AdamW(
        chosen, lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=plan.weight_decay, fused=True
    )
    rng = stream(seed, Purpose.RELEASE, 2)
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        starts = rng.integers(0, len(text) - plan.window, size=plan.batch)
        windows = torch.stack([text[start : start + plan.window] for start in starts])
        loss = model(input_ids=windows, labels=windows, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(chosen, 1.0)
        optimizer.step()  # pyright: ignore[reportUnknownMemberType] - torch's own type
        optimizer.zero_grad()
        if not on_step(step, float(loss.detach())):
            return
