"""dsm_loss, forward and backward, against EDM's weighted square written in torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import THREADS, Case, memory_floor, worst_error
from torch import Tensor

from sidfast import ops
from sidfast.base.batch import spread
from sidfast.ops.score_losses import reference

DATA = 0.5
FLOPS = 5  # an element: 3 for the sum, 2 for the gradient


def eager(images: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    weight = (sigma**2 + DATA**2) / (sigma * DATA) ** 2
    return (weight * (denoised - images) ** 2).sum(dim=(1, 2, 3))


@pytest.mark.parametrize("threads", THREADS, indirect=True)
def bench_dsm_loss(race: Callable[..., None], threads: int) -> None:
    torch.manual_seed(0)
    shape, dtype = (128, 3, 64, 64), torch.float32
    images, denoised = torch.randn(shape), torch.randn(shape).requires_grad_()
    sigma = torch.rand(shape[0]) + 0.1
    column, scale = spread(sigma, images), 1 / shape[0]
    compiled = torch.compile(eager)

    def both_ways(loss: Callable[..., Tensor], level: Tensor) -> list[Tensor]:
        value = loss(images, denoised, level)
        return [value.detach(), *torch.autograd.grad(value.sum() * scale, [denoised])]

    def ours(images: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        return ops.dsm_loss(images, denoised, sigma, DATA, grad_scale=scale, backend="native")

    exact_denoised = denoised.detach().double().requires_grad_()
    loss, _ = reference.dsm_loss(images.double(), exact_denoised, sigma, DATA)
    exact = [loss.detach(), *torch.autograd.grad(loss.sum() * scale, [exact_denoised])]
    traffic, flops = 3 * images.numel() * 4, FLOPS * images.numel()
    race(
        Case("dsm_loss", "forward+backward", shape, dtype, "contiguous", threads, traffic, flops),
        lambda: both_ways(ours, sigma),
        {
            "eager": lambda: both_ways(eager, column),
            "compile": lambda: both_ways(compiled, column),
            **memory_floor(traffic, 1),
        },
        error=worst_error(both_ways(ours, sigma), exact),
        budget=4e-7,
    )
