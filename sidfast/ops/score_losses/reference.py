"""Eager PyTorch definition of the score losses, on any device.

The functions that make a loss alone are differentiable, and in float64 the oracle. The others write
out the gradients, as the single-pass back ends do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base.batch import spread
from sidfast.base.philox import noised
from sidfast.ops.score_losses.contract import gradients_like, loss_dtype

_ONE = (True,)


def reasons(op: str, *args: object) -> list[str]:
    """The reference serves every call on every device."""
    return []


def sid_loss(
    images: Tensor, teacher_x0: Tensor, fake_x0: Tensor, alpha: float, floor: float
) -> tuple[Tensor, Tensor]:
    x, teacher, fake = _widened(images, teacher_x0, fake_x0)
    return _sid(teacher - x, teacher - fake, alpha, floor)


def sid_loss_grads(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float,
    floor: float,
    grad_scale: float,
    need: Sequence[bool],
) -> tuple[Tensor, ...]:
    x, teacher, fake = _widened(images, teacher_x0, fake_x0)
    error, difference = teacher - x, teacher - fake
    loss, weight = _sid(error, difference, alpha, floor)
    to_networks = _sid_gradients(error, difference, alpha)
    grads = gradients_like((images, teacher_x0, fake_x0), need)
    _fill(grads, (-difference, *to_networks), weight, grad_scale)
    return loss, weight, *grads


def sid_loss_raw(*args: Any) -> tuple[Tensor, Tensor]:
    *folded, alpha, floor = args
    return _sid(*_error_and_difference(*folded), alpha, floor)


def sid_loss_raw_grads(*args: Any) -> tuple[Tensor, ...]:
    *folded, alpha, floor, grad_scale, need = args
    error, difference = _error_and_difference(*folded)
    loss, weight = _sid(error, difference, alpha, floor)
    c_skip, c_out = (spread(each, error) for each in folded[-2:])
    to_teacher, to_fake = _sid_gradients(error, difference, alpha)
    batches = folded[:4]
    to_noisy = c_skip * difference
    to_images = -difference + to_noisy if batches[-1] is None else -difference
    grads = gradients_like(batches, need)
    values = (to_images, c_out * to_teacher, c_out * to_fake, to_noisy)
    _fill(grads, values, weight, grad_scale)
    return loss, weight, *grads


def dsm_loss(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float
) -> tuple[Tensor, Tensor]:
    x, denoised = _widened(images, denoised)
    return _dsm(denoised - x, sigma, sigma_data)


def dsm_loss_grad(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float, grad_scale: float
) -> tuple[Tensor, ...]:
    x, wide = _widened(images, denoised)
    residual = wide - x
    loss, weight = _dsm(residual, sigma, sigma_data)
    grads = gradients_like((denoised,), _ONE)
    _fill(grads, (2 * residual,), weight, grad_scale)
    return loss, weight, *grads


def dsm_loss_raw(*args: Any) -> tuple[Tensor, Tensor]:
    images, raw, noisy, sigma, *folded, sigma_data = args
    residual, _ = _error_and_difference(images, raw, raw, noisy, sigma, *folded)
    return _dsm(residual, sigma, sigma_data)


def dsm_loss_raw_grad(*args: Any) -> tuple[Tensor, ...]:
    images, raw, noisy, sigma, *folded, sigma_data, grad_scale = args
    residual, _ = _error_and_difference(images, raw, raw, noisy, sigma, *folded)
    loss, weight = _dsm(residual, sigma, sigma_data)
    grads = gradients_like((raw,), _ONE)
    c_out = spread(folded[-1], residual)
    _fill(grads, (2 * c_out * residual,), weight, grad_scale)
    return loss, weight, *grads


def vsd_loss(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    scale: Tensor | None,
    floor: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Its derivative with respect to `images`, the only one, is the gradient that it defines."""
    x, teacher, fake = _widened(images, teacher_x0, fake_x0)
    weight = _vsd_weight(teacher - x, scale, floor, eps)
    pull = spread(weight, x) * (fake - teacher).detach()
    residual = x - x.detach() + pull
    return _finished(_sample_sum(residual.square()) / 2, weight, x.dtype)


def vsd_loss_grad(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    scale: Tensor | None,
    floor: float,
    eps: float,
    grad_scale: float,
) -> tuple[Tensor, ...]:
    loss, weight = vsd_loss(images.detach(), teacher_x0, fake_x0, scale, floor, eps)
    _, teacher, fake = _widened(images, teacher_x0, fake_x0)
    grads = gradients_like((images,), _ONE)
    _fill(grads, (fake - teacher,), weight, grad_scale)
    return loss, weight, *grads


def _widened(*batches: Tensor) -> list[Tensor]:
    compute = loss_dtype(*batches)
    return [batch.to(compute) for batch in batches]


def _error_and_difference(
    images: Tensor,
    teacher_raw: Tensor,
    fake_raw: Tensor,
    noisy: Tensor | None,
    sigma: Tensor,
    seed: Tensor | None,
    index: Tensor | None,
    stream: int,
    c_skip: Tensor,
    c_out: Tensor,
) -> tuple[Tensor, Tensor]:
    """e = T - x and d = T - F from raw outputs; x_t leaves d out before anything is rounded."""
    x, teacher, fake, *given = _widened(
        images, teacher_raw, fake_raw, *[] if noisy is None else [noisy]
    )
    if given:
        x_t = given[0]
    else:
        assert seed is not None and index is not None
        x_t = noised(x, sigma, seed, index, stream)
    skip, out = spread(c_skip, x), spread(c_out, x)
    return skip * x_t + out * teacher - x, out * (teacher - fake)


def _sid(error: Tensor, difference: Tensor, alpha: float, floor: float) -> tuple[Tensor, Tensor]:
    weight = 1 / _mean(error).clamp(min=floor)
    total = _sample_sum(difference * (error - alpha * difference))
    return _finished(weight * total, weight, error.dtype)


def _sid_gradients(error: Tensor, difference: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """With respect to T and F, times w."""
    return error + (1 - 2 * alpha) * difference, 2 * alpha * difference - error


def _dsm(residual: Tensor, sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    sigma = sigma.double()
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    return _finished(weight * _sample_sum(residual.square()), weight, residual.dtype)


def _vsd_weight(error: Tensor, scale: Tensor | None, floor: float, eps: float) -> Tensor:
    weight = 1 / (_mean(error).clamp(min=floor) + eps)
    return weight if scale is None else weight * scale


def _mean(error: Tensor) -> Tensor:
    """Mean |e| of each sample in float64, without gradient; NaN where it is infinite."""
    size = max(error[:1].numel(), 1)
    mean = _sample_sum(error.detach().abs()) / size
    return mean.where(mean.isfinite(), torch.nan)


def _sample_sum(x: Tensor) -> Tensor:
    return x.unsqueeze(-1).flatten(1).sum(dim=1, dtype=torch.float64)


def _finished(loss: Tensor, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both rounded to `dtype`; where either is not finite, zero loss and a weight of NaN."""
    loss, weight = loss.to(dtype), weight.detach().to(dtype)
    good = loss.isfinite() & weight.isfinite()
    return loss.where(good, 0), weight.where(good, torch.nan)


def _fill(
    grads: Sequence[Tensor], values: Sequence[Tensor], weight: Tensor, grad_scale: float
) -> None:
    """Store weight grad_scale value in each gradient that is needed, 0 for a bad sample."""
    for grad, value in zip(grads, values, strict=True):
        if grad.shape == value.shape:
            factor = spread(weight * grad_scale, value)
            grad.copy_(torch.where(factor.isnan(), 0, value * factor))
