"""AdamW without weight decay over a stack: every device has its own rate, steps and clipping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from fleettune.kernels.adapter_stack import Stack, carry

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class StackedAdamW:
    """Torch's fused AdamW, one call per device: every device has its own clip and rate."""

    def __init__(
        self, stack: Stack, learning_rates: Sequence[float], clips: Sequence[float]
    ) -> None:
        self._stack = stack
        self._rates = tuple(learning_rates)
        self._clips = torch.tensor(clips)
        self._first = torch.zeros_like(stack.flat)
        self._second = torch.zeros_like(stack.flat)
        self._steps = torch.zeros(len(stack.flat))

    def compact(self, stack: Stack, devices: Sequence[int]) -> StackedAdamW:
        """Returns the optimizer of some of the devices, whose stack is given."""
        rates = [self._rates[device] for device in devices]
        clips = [float(self._clips[device]) for device in devices]
        chosen = StackedAdamW(stack, rates, clips)
        chosen._first = carry(self._first, self._stack, stack, devices)
        chosen._second = carry(self._second, self._stack, stack, devices)
        chosen._steps = self._steps[list(devices)]
        return chosen

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Takes one step of every device.

        Args:
            gradient: Of the sum of all losses, laid out as the stack; used up.
        """
        norms = cast(Tensor, cast(Any, torch.linalg).vector_norm(gradient, dim=1))
        shrink = ((norms + 1e-6) / self._clips).clamp_(min=1.0)
        self._steps += 1
        for device, rate in enumerate(self._rates):
            cast(Any, torch)._fused_adamw_(
                [self._stack.flat[device]],
                [gradient[device]],
                [self._first[device]],
                [self._second[device]],
                [],
                [self._steps[device]],
                lr=rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=0.0,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
                grad_scale=shrink[device],
            )


def gather_gradient(stack: Stack) -> Tensor:
    """Takes the gradients that autograd left at the leaves; returns them laid out as the stack."""
    gradient = torch.zeros_like(stack.flat)
    for leaf in stack.leaves():
        if leaf.grad is not None:
            stack.view(leaf, gradient).copy_(leaf.grad)
            leaf.grad = None
    return gradient
