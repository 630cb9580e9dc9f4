"""Eager PyTorch definition of the score losses, on any device.

`sid_loss` and `dsm_loss` are differentiable, and in float64 the oracle. The others write out their
gradients, as the single-pass back ends do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sidfast.base.batch import spread
from sidfast.ops.score_losses.contract import gradient_like, loss_dtype


def reasons(op: str, *args: object) -> list[str]:
    """The reference serves every call on every device."""
    return []


def sid_loss(
    images: Tensor, teacher_x0: Tensor, fake_x0: Tensor, alpha: float, floor: float
) -> tuple[Tensor, Tensor]:
    error, difference = _error_and_difference(images, teacher_x0, fake_x0)
    return _sid(error, difference, _weight(error, floor), alpha)


def sid_loss_grads(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float,
    floor: float,
    grad_scale: float,
    need: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    error, difference = _error_and_difference(images, teacher_x0, fake_x0)
    weight = _weight(error, floor)
    loss, bad = _sid(error, difference, weight, alpha)
    factor = (grad_scale / weight).to(error.dtype)
    return (
        loss,
        bad,
        _gradient(images, -difference, factor, bad, need[0]),
        _gradient(teacher_x0, error + (1 - 2 * alpha) * difference, factor, bad, need[1]),
        _gradient(fake_x0, 2 * alpha * difference - error, factor, bad, need[2]),
    )


def _sid(error: Tensor, difference: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    total = _sample_sum(difference * (error - alpha * difference))
    return _zero_bad((total / weight).to(error.dtype), weight)


def dsm_loss(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float
) -> tuple[Tensor, Tensor]:
    residual = _residual(images, denoised)
    weight = _dsm_weight(sigma, sigma_data)
    return _zero_bad((weight * _sample_sum(residual.square())).to(residual.dtype), weight)


def dsm_loss_grad(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float, grad_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    loss, bad = dsm_loss(images, denoised, sigma, sigma_data)
    residual = _residual(images, denoised)
    factor = (2 * grad_scale * _dsm_weight(sigma, sigma_data)).to(residual.dtype)
    return loss, bad, _gradient(denoised, residual, factor, bad, True)


def _error_and_difference(
    images: Tensor, teacher_x0: Tensor, fake_x0: Tensor
) -> tuple[Tensor, Tensor]:
    """e = T - x and d = T - F, as the method writes them."""
    compute = loss_dtype(images, teacher_x0, fake_x0)
    x, teacher, fake = (each.to(compute) for each in (images, teacher_x0, fake_x0))
    return teacher - x, teacher - fake


def _residual(images: Tensor, denoised: Tensor) -> Tensor:
    compute = loss_dtype(images, denoised)
    return denoised.to(compute) - images.to(compute)


def _weight(error: Tensor, floor: float) -> Tensor:
    size = max(error[:1].numel(), 1)
    return (_sample_sum(error.detach().abs()) / size).clamp(min=floor)


def _dsm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    sigma = sigma.double()
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def _sample_sum(x: Tensor) -> Tensor:
    return x.unsqueeze(-1).flatten(1).sum(dim=1, dtype=torch.float64)


def _zero_bad(loss: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    bad = ~(loss.isfinite() & weight.isfinite())
    return torch.where(bad, 0, loss), bad


def _gradient(operand: Tensor, value: Tensor, factor: Tensor, bad: Tensor, need: bool) -> Tensor:
    if not need:
        return gradient_like(operand, need)
    scaled = torch.where(spread(bad, value), 0, value * spread(factor, value))
    return gradient_like(operand).copy_(scaled)
