"""vsd_loss, forward and backward, against the published form of its loss, in torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from conftest import THREADS, Case, memory_floor, worst_error
from torch import Tensor

from sidfast import ops
from sidfast.ops.score_losses import reference

EPS = 1e-6
FLOPS = 7  # an element: 6 for the sums, 1 for the gradient


def eager(images: Tensor, teacher: Tensor, fake: Tensor) -> Tensor:
    with torch.no_grad():
        weight = 1 / ((images - teacher).abs().mean(dim=(1, 2, 3), keepdim=True) + EPS)
        target = images - (fake - teacher) * weight
    return 0.5 * F.mse_loss(images, target, reduction="none").sum(dim=(1, 2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("threads", THREADS, indirect=True)
def bench_vsd_loss(race: Callable[..., None], threads: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shape = (128, 3, 64, 64)
    images, teacher, fake = (torch.randn(shape).to(dtype) for _ in range(3))
    images.requires_grad_()
    scale = 1 / shape[0]
    compiled = torch.compile(eager)

    def both_ways(loss: Callable[..., Tensor]) -> list[Tensor]:
        value = loss(images, teacher, fake)
        return [value.detach(), *torch.autograd.grad(value.sum() * scale, [images])]

    def ours(*args: Tensor) -> Tensor:
        return ops.vsd_loss(*args, eps=EPS, grad_scale=scale, backend="native")

    exact_images = images.detach().double().requires_grad_()
    loss, _ = reference.vsd_loss(exact_images, teacher.double(), fake.double(), None, 0.0, EPS)
    exact = [loss.detach(), *torch.autograd.grad(loss.sum() * scale, [exact_images])]
    traffic = 4 * images.numel() * images.element_size()
    race(
        Case("vsd_loss", "forward+backward", shape, dtype, "contiguous", threads, traffic,
             FLOPS * images.numel()),
        lambda: both_ways(ours),
        {
            "eager": lambda: both_ways(eager),
            "compile": lambda: both_ways(compiled),
            **memory_floor(traffic, 2),
        },
        error=worst_error(both_ways(ours), exact),
        budget=max(4e-7, torch.finfo(dtype).eps),
    )  # fmt: skip
