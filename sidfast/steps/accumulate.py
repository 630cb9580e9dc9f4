"""Gradient accumulation, the same for both updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sidfast.base.lanes import lane_count, side_by_side
from sidfast.steps.draws import Draws


def accumulate(
    parameters: Sequence[Tensor],
    rounds: Sequence[Draws],
    loss_of: Callable[[Draws], Tensor],
    scale: float,
) -> Tensor:
    """Set each parameter's `.grad` to the gradient of scale * sum of all losses.

    Rounds run one after the other, on a CPU as many side by side as torch has threads; their
    gradients are added in order, so the result does not depend on timing.

    Args:
        parameters: one that no loss reaches gets None.
        rounds: the draws of each micro-batch.
        loss_of: draws of B samples to losses (B,).

    Returns:
        The sum of all per-sample losses, unscaled, 0-d on the device.
    """
    device = parameters[0].device

    def gradients_of(draws: Draws) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        loss = loss_of(draws).sum()
        return loss.detach(), torch.autograd.grad(loss * scale, parameters, allow_unused=True)

    for parameter in parameters:
        parameter.grad = None
    losses = []
    lanes = lane_count(device, len(rounds))
    for start in range(0, len(rounds), lanes):
        wave = side_by_side(gradients_of, rounds[start : start + lanes], device)
        for loss, gradients in wave:
            losses.append(loss)
            _add(parameters, gradients)
    return torch.stack(losses).sum()


def _add(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    sums, terms, taken = [], [], set()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is not None:
            sums.append(parameter.grad)
            terms.append(gradient)
            continue
        # Autograd may hand out one tensor for two parameters, or another memory format, which
        # fused optimizers would misread.
        if gradient.stride() != parameter.stride() or gradient.data_ptr() in taken:
            gradient = torch.empty_like(parameter).copy_(gradient)
        taken.add(gradient.data_ptr())
        parameter.grad = gradient
    if sums:
        torch._foreach_add_(sums, terms)
