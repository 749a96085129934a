"""The host's processor, ``cpu`` or ``cuda``, and the precision of its passes.

Weights live on it and passes run on it; jobs come from the processor's memory and results go back
there. A device of the fleet never learns where its passes ran.

Precision ``reference`` is fp32, ``fast`` a bf16 backbone with fp32 adapters. Both are chosen
explicitly. ``fast`` is for processors with bf16 units, GPUs too; elsewhere it would only be slower,
so it is an error there. Releases are trained in fp32 whatever a run's precision is.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import torch

log = logging.getLogger(__name__)

CPU = "cpu"
CUDA = "cuda"
PROCESSORS = (CPU, CUDA)
REFERENCE = "reference"
FAST = "fast"
AUTO = "auto"
PRECISIONS = (REFERENCE, FAST, AUTO)
DTYPES = {REFERENCE: torch.float32, FAST: torch.bfloat16}
"""Data type of the backbone under each precision."""
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Processor features that multiply bf16, as Linux names them (the last one on Arm)."""


def check_processor(asked: str) -> None:
    """Raises if passes cannot run on a processor here.

    Raises:
        ValueError: If it is unknown, or is ``cuda`` where torch finds no CUDA device.
    """
    if asked not in PROCESSORS:
        raise ValueError(f"compute.device must be one of {PROCESSORS}, got {asked!r}")
    if asked == CUDA and not torch.cuda.is_available():
        raise ValueError(
            f"compute.device must be cpu here: torch {torch.__version__} finds no CUDA device, "
            f"got {asked}"
        )


def exact_products() -> None:
    """Keeps fp32 products of this process fp32: no TF32, whose factors have 10 bits."""
    torch.set_float32_matmul_precision("highest")


def place_tensors_on(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context in which torch makes new tensors on a device.

    For a CPU it does nothing: tensors are made there without it, and it would slow down every call
    of torch.
    """
    return nullcontext() if device.type == CPU else device


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
