"""What the benchmarks print: one JSON line per figure, with the machine that it was measured on."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Processor features that the matrix library makes use of, as Linux names them."""


def emit(name: str, value: float | str, detail: dict[str, Any]) -> None:
    """Prints one figure as a JSON line."""
    print_line({"name": name, "value": value, "detail": detail | machine()})


def print_line(record: dict[str, Any]) -> None:
    """Prints a record as a JSON line, at once."""
    print(json.dumps(record), flush=True)


def machine() -> dict[str, Any]:
    """Returns what the figure was measured on."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    words = dict(reversed([tuple(map(str.strip, line.partition(":")[::2])) for line in lines]))
    present = set(words.get("flags", "").split())
    return {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu": words.get("model name", platform.machine()),
        "flags": [flag for flag in FLAGS if flag in present],
        "torch": torch.__version__,
    }


def rss_mb() -> float:
    """Returns the resident memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
