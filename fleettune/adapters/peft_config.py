"""What a PEFT LoRA folder says of itself, read so that nothing in it changes a result unseen.

Only plain LoRA is taken: the effect of an adapter is ``scale * B A`` on top of the base, and
nothing else. Initialisations that change the base while training (PiSSA, OLoRA, LoftQ, CorDA,
LoRA-GA) and every switch that is not known here are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import regex

from fleettune.adapters.patch import peft_name
from fleettune.records import read_object
from fleettune.shapes import Site

CONFIG = "adapter_config.json"
DEFAULT = 8
"""PEFT's own default of ``r`` and of ``lora_alpha``."""
_PATTERN_S = 1.0
"""Seconds that matching one pattern may take."""
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}
"""What may stand under keys that change the result, the plain form first."""
_READ = frozenset({"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"})
_WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
"""Keys that do not change what given factors compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftConfig:
    """The scale and rank that an adapter says every site has.

    Attributes:
        file: Where it says so.
        base: The model that it was trained on, as PEFT wrote it; empty where it does not say.
        rank: Of a site that no pattern names.
        alpha: Likewise.
        ranks: Rank by pattern.
        alphas: Alpha by pattern.
        rank_stabilised: Whether the scale is ``alpha / sqrt(rank)`` (rsLoRA).
    """

    file: Path
    base: str
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rank_stabilised: bool

    def scale(self, site: Site, rank: int) -> float:
        """Returns what PEFT multiplies a site's product by.

        Args:
            site: The site.
            rank: The rank of its tensors.

        Raises:
            ValueError: If the folder says that the site has another rank.
        """
        said = self.ranks.get(self._pattern(self.ranks, site, "rank_pattern"), self.rank)
        if said != rank:
            raise ValueError(
                f"{self.file} says that {site} has rank {said}, its tensors have rank {rank}: "
                "write r and rank_pattern as they are"
            )
        alpha = self.alphas.get(self._pattern(self.alphas, site, "alpha_pattern"), self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    def _pattern(self, patterns: Mapping[str, Any], site: Site, key: str) -> str:
        """Returns the first pattern that names a site, as PEFT finds it; empty without one."""
        for pattern in patterns:
            try:
                found = regex.match(rf"(.*\.)?({pattern})$", peft_name(site), timeout=_PATTERN_S)
            except (regex.error, TimeoutError, RecursionError) as error:
                raise ValueError(
                    f"{key} of {self.file} holds {pattern[:80]!r}, which is no regular expression "
                    f"that can be matched ({type(error).__name__}): name the modules instead"
                ) from error
            if found:
                return pattern
        return ""


def read_peft_config(file: Path) -> PeftConfig:
    """Returns what an ``adapter_config.json`` says.

    Raises:
        ValueError: If it is no JSON object, if a value is of another type, or if anything in it
            makes the adapter more than plain LoRA.
    """
    config = read_object(file.read_bytes(), str(file))
    for key, value in config.items():
        if key in _PLAIN:
            allowed = any(value == v and type(value) is type(v) for v in _PLAIN[key])
        else:
            allowed = key in _READ | _WITHOUT_EFFECT or value in (None, False, [], {}, "")
        if not allowed:
            plain = repr(_PLAIN[key][0]) if key in _PLAIN else "off (null or false)"
            raise ValueError(
                f"{key} of {file} must be {plain} for plain LoRA, got {str(value)[:80]!r}: convert "
                "the adapter with PEFT's save_pretrained (path_initial_model_for_weight_conversion "
                "where its initialisation changed the base) or train it as plain LoRA"
            )
    return PeftConfig(
        file=file,
        base=str(config.get("base_model_name_or_path") or ""),
        rank=int(_number(config, "r", file, least=1)),
        alpha=_number(config, "lora_alpha", file),
        ranks={k: int(v) for k, v in _patterns(config, "rank_pattern", file).items()},
        alphas=_patterns(config, "alpha_pattern", file),
        rank_stabilised=bool(config.get("use_rslora") or False),
    )


def _number(config: Mapping[str, Any], key: str, file: Path, least: float = 0) -> float:
    value = config.get(key, DEFAULT)
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong or not least <= value <= 1e6:  # NaN fails both
        raise ValueError(
            f"{key} of {file} must be a number from {least:g} to a million, got {value!r}: "
            "write it as PEFT does"
        )
    return float(value)


def _patterns(config: Mapping[str, Any], key: str, file: Path) -> Mapping[str, float]:
    patterns: object = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"{key} of {file} must be an object, got {patterns!r}")
    named = cast(dict[str, Any], patterns)
    return {pattern: _number({key: value}, key, file) for pattern, value in named.items()}
