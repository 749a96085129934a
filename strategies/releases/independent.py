"""Independent releases: the same shapes, trained from fresh weights, so nothing carries over."""

from __future__ import annotations

from typing import Any

import torch

from fleettune.seeds import Purpose, stream


def refresh(model: Any, seed: int) -> None:  # noqa: ANN401 - a transformers model
    """Draws all weights of a model anew, in place, from a stream of their own.

    Matrices are normal with the deviation that the model's configuration asks for, norms are one,
    biases zero, as transformers begins a Llama.

    Args:
        model: A Llama-like causal language model.
        seed: Key of the stream.
    """
    rng = stream(seed, Purpose.RELEASE, 3)
    deviation = model.config.initializer_range
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                drawn = rng.normal(0.0, deviation, size=tuple(parameter.shape))
                parameter.copy_(torch.as_tensor(drawn))
            else:
                parameter.fill_(0.0 if name.endswith(".bias") else 1.0)
