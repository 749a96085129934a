"""A device's choices as one frozen value, and how they are read from a message.

A policy crosses the wire as data: type names and fields. They are matched against the closed types
below and those that the device's own operator installed; nothing is ever imported because a
message said so.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from clients.adaptation import (
    Adaptation,
    AdaptationRule,
    AlwaysRetune,
    AlwaysReuse,
    Canary,
    CopyNearest,
    EdgeTune,
    EdgeTuneReleased,
    FleetOnly,
    NeverPersonalise,
    Oracle,
    Periodic,
    PerRelease,
    RandomAtRate,
    Retrieve,
    Swapped,
    UserPrior,
    traits_of,
)
from clients.placement import (
    AttentionOnly,
    EverySite,
    GradCut,
    GradCutReleased,
    LoraDrop,
    PlacementRule,
    RandomSameProfile,
    TopLayers,
)
from clients.selection import (
    Annotation,
    Fifo,
    Herding,
    KCenter,
    Lexicon,
    QualityReplace,
    RandomReplace,
    Reservoir,
    Selection,
)
from clients.start import Mixture, NearestEntry, Rival, Scratch, StartRule
from clients.synthesis import NoSynthesis, SelfParaphrase, Synthesis, TemplateRewrite
from clients.tuning.schedule import Tuning
from fleettune.deltas.codecs import CODECS, FP32, Codec
from fleettune.records import OMIT_DEFAULT, Record, from_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a device may keep.

    Attributes:
        buffer_bytes: Bytes of the exchanges in the buffer, as UTF-8, and of what the selection
            keeps beside them (`clients.selection.buffer.Note`).
        total_bytes: Bytes of everything: buffer, embeddings kept for retrieval, patches, what a
            codec left out, and while a patch is tuned the prefix cache.
        shelf: Whether patches that were tuned anew stay (`clients.state.shelf`), as many as the
            rest leaves room for.
    """

    buffer_bytes: int
    total_bytes: int
    shelf: bool = field(default=False, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if self.buffer_bytes < 1:
            raise ValueError(f"storage.buffer_bytes must be >= 1 byte, got {self.buffer_bytes}")
        if self.total_bytes < self.buffer_bytes:
            raise ValueError(
                f"storage.total_bytes must be >= storage.buffer_bytes ({self.buffer_bytes} bytes), "
                f"got {self.total_bytes}"
            )


PARTS: Mapping[str, type] = {
    "selection": Selection,
    "synthesis": Synthesis,
    "adaptation": Adaptation,
    "placement": PlacementRule,
    "codec": Codec,
    "start": StartRule,
}
"""The exchangeable parts of a policy, each with the protocol that it must follow."""


SCRATCH = Scratch()


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePolicy:
    """Everything that a device's algorithm was told to do."""

    selection: Selection
    synthesis: Synthesis
    adaptation: AdaptationRule
    placement: PlacementRule
    tuning: Tuning
    quota: Quota
    annotation: Annotation = field(default_factory=Annotation)
    codec: Codec = FP32
    start: StartRule = field(default=SCRATCH, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        for name, kind in PARTS.items():
            part = getattr(self, name)
            if not isinstance(part, kind):
                raise ValueError(
                    f"{name} must be of kind {kind.__name__}, got {type(part).__name__}"
                )
        traits_of(self.adaptation)


BUILT_IN: Mapping[str, type] = {
    policy.__name__: policy
    for policy in (
        DevicePolicy,
        Quota,
        Annotation,
        Fifo,
        Reservoir,
        RandomReplace,
        KCenter,
        Herding,
        QualityReplace,
        Lexicon,
        NoSynthesis,
        SelfParaphrase,
        TemplateRewrite,
        AlwaysRetune,
        AlwaysReuse,
        NeverPersonalise,
        Retrieve,
        UserPrior,
        CopyNearest,
        Swapped,
        EdgeTuneReleased,
        EdgeTune,
        Canary,
        Periodic,
        RandomAtRate,
        PerRelease,
        Oracle,
        AttentionOnly,
        EverySite,
        GradCut,
        GradCutReleased,
        LoraDrop,
        RandomSameProfile,
        TopLayers,
        Tuning,
        FleetOnly,
        Scratch,
        NearestEntry,
        Mixture,
        Rival,
        *CODECS,
    )
}


def read_policy(record: Record, installed: Sequence[str] = ()) -> DevicePolicy:
    """Returns the policy that a record describes.

    Args:
        record: Type names and fields, from a message.
        installed: Dotted paths of policy classes that this device's operator allows besides the
            built-in ones. They come from the device's own configuration, never from a message.

    Raises:
        ValueError: If a type is not allowed here or a field does not fit.
    """
    policy = from_record(record, policy_types(installed), "policy")
    if not isinstance(policy, DevicePolicy):
        raise ValueError(f"policy must be DevicePolicy, got {type(policy).__name__}")
    return policy


def policy_types(installed: Sequence[str]) -> Mapping[str, type]:
    """Returns the types that a message may name: the built-in and the installed ones.

    Raises:
        ValueError: If an installed class cannot be imported or its name is taken.
    """
    types = dict(BUILT_IN)
    for path in installed:
        name = path.rpartition(".")[2]
        if name in types:
            raise ValueError(
                f"installed policy {path!r} must have another name: {name} is taken by "
                f"{types[name].__module__}.{name}"
            )
        types[name] = _installed(path)
    return types


def _installed(path: str) -> type:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"installed policy {path!r} cannot be imported here: {error}") from error
    return cast(type, found)
