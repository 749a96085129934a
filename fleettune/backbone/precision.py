"""Precision of a pass: ``reference`` is fp32, ``fast`` a bf16 backbone with fp32 adapters.

Chosen explicitly. ``fast`` is for processors with bf16 units, GPUs too; elsewhere it would be
slower and no more, so it is an error there. Releases are trained in fp32 whatever a run's precision
is.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import torch

from fleettune.backbone.processor import CPU, CUDA

log = logging.getLogger(__name__)

REFERENCE = "reference"
FAST = "fast"
AUTO = "auto"
PRECISIONS = (REFERENCE, FAST, AUTO)
DTYPES = {REFERENCE: torch.float32, FAST: torch.bfloat16}
"""Data type of the backbone under each precision."""

BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Processor features that multiply bf16, as Linux names them (the last one on Arm)."""


@cache
def bf16_units() -> tuple[str, ...]:
    """Returns the features of this processor that multiply bf16; none where unknown."""
    file = Path("/proc/cpuinfo")
    for line in file.read_text().splitlines() if file.is_file() else ():
        if line.lower().startswith(("flags", "features")):
            present = set(line.partition(":")[2].split())
            return tuple(flag for flag in BF16_FLAGS if flag in present)
    return ()


def fast_units(processor: str) -> tuple[str, ...]:
    """Returns what multiplies bf16 on ``cpu`` or ``cuda``; none where nothing does."""
    if processor != CUDA:
        return bf16_units()
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return ()
    return (torch.cuda.get_device_name(),)


def check_precision(asked: str, processor: str = CPU) -> None:
    """Raises if a processor of this machine cannot run at a precision.

    Raises:
        ValueError: If the precision is unknown, or is ``fast`` on a processor without bf16 units.
    """
    if asked not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {asked!r}")
    if asked == FAST and not fast_units(processor):
        units = f"(one of {', '.join(BF16_FLAGS)})" if processor == CPU else "on its GPU"
        raise ValueError(
            f"precision=fast needs a processor with bf16 units {units}, this one has none; "
            "use precision=reference"
        )


def resolve_precision(asked: str, processor: str = CPU) -> str:
    """Returns ``reference`` or ``fast``; ``auto`` takes what the processor can, and logs it.

    Raises:
        ValueError: As `check_precision`.
    """
    check_precision(asked, processor)
    if asked == AUTO:
        units = fast_units(processor)
        chosen = FAST if units else REFERENCE
        log.info("precision=auto is %s: bf16 units %s", chosen, ", ".join(units) or "none")
        return chosen
    return asked
