"""The host's processor: ``cpu``, or ``cuda`` when it is asked for.

Weights live on it and passes run on it; jobs come from the processor's memory and results go back
there. A device of the fleet never learns where its passes ran.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

CPU = "cpu"
CUDA = "cuda"
PROCESSORS = (CPU, CUDA)


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

    On a CPU it does nothing: there tensors are made anyway, and the context would slow down every
    call of torch.
    """
    return nullcontext() if device.type == CPU else device
