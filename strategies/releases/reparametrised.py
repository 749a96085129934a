"""Re-parametrised releases: other weights, the same function.

Attention is linear in its values, so v times s and o divided by s leave every output as it was,
with grouped heads too. A rule that looks at weights alone cannot tell such a release from a real
one (METHODS A1.4, D.2).
"""

from __future__ import annotations

from typing import Any

import torch


def reparametrise(model: Any, scale: float) -> None:  # noqa: ANN401 - a transformers model
    """Multiplies v of every layer by `scale` and divides o by it, in place.

    In half precision, which releases are shipped in, a power of two changes no mantissa, so the
    function is exactly the same but for subnormal weights; other factors round every weight of v
    and o once more. The bias of o stands behind the product and stays.

    Args:
        model: A Llama-like causal language model.
        scale: The factor, > 0.
    """
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.v_proj.weight.mul_(scale)
            if attention.v_proj.bias is not None:
                attention.v_proj.bias.mul_(scale)
            attention.o_proj.weight.div_(scale)
