"""Memory that a step frees stays with the process for the next step.

glibc gives a freed top of the heap back to the system once it is larger than twice the largest
block that was freed so far, and a step's tensors are then zeroed page by page again: a tenth of a
small model's tuning (docs/LOG.md). Elsewhere this does nothing.
"""

from __future__ import annotations

import torch

_LARGEST_BYTES = 31 * 2**20
"""Below glibc's largest threshold, 32 MiB; twice as much stays with the process."""


def keep_heap() -> None:
    """Lets the process keep up to 62 MiB of freed heap."""
    block = torch.empty(_LARGEST_BYTES, dtype=torch.uint8)
    del block
