"""sid_loss, forward and backward, against the method's formula as it stands, in torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import THREADS, Case, memory_floor, worst_error
from torch import Tensor

from sidfast import ops
from sidfast.ops.score_losses import reference

ALPHA = 1.2
FLOPS = 17  # an element: 8 for the sums, 9 for the gradients


def eager(images: Tensor, teacher: Tensor, fake: Tensor) -> Tensor:
    with torch.no_grad():
        weight = (images - teacher).abs().mean(dim=(1, 2, 3), keepdim=True).clip(min=1e-5)
    loss = (teacher - fake) * ((teacher - images) - ALPHA * (teacher - fake)) / weight
    return loss.sum(dim=(1, 2, 3))


def cases() -> list[tuple[int, tuple[int, ...], torch.dtype, str]]:
    images, digits = (128, 3, 64, 64), (128, 1, 8, 8)
    many = (512, 3, 64, 64)  # more than caches hold of eager torch's intermediates
    most, both = THREADS[-1], "forward+backward"
    return [
        *((threads, images, torch.float32, both) for threads in THREADS),
        *((threads, many, torch.float32, both) for threads in THREADS),
        (most, images, torch.float32, "loss and gradients, without autograd"),
        (most, images, torch.bfloat16, both),
        (most, digits, torch.float32, both),
    ]


@pytest.mark.parametrize(("threads", "shape", "dtype", "mode"), cases(), indirect=["threads"])
def bench_sid_loss(
    race: Callable[..., None],
    threads: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    mode: str,
) -> None:
    torch.manual_seed(0)
    operands = [torch.randn(shape).to(dtype).requires_grad_() for _ in range(3)]
    scale = 100 / shape[0]
    compiled = torch.compile(eager)

    def both_ways(loss: Callable[..., Tensor]) -> list[Tensor]:
        value = loss(*operands)
        return [value.detach(), *torch.autograd.grad(value.sum() * scale, operands)]

    def ours(*args: Tensor) -> Tensor:
        return ops.sid_loss(*args, ALPHA, grad_scale=scale, backend="native")

    def without_autograd() -> list[Tensor]:
        plain = [x.detach() for x in operands]
        loss, _, *grads = torch.ops.sidfast._sid_loss_grads(
            *plain, ALPHA, 1e-5, scale, [True] * 3, "native"
        )
        return [loss, *grads]

    call = without_autograd if "without" in mode else lambda: both_ways(ours)
    exact_operands = [x.detach().double().requires_grad_() for x in operands]
    loss, _ = reference.sid_loss(*exact_operands, ALPHA, 1e-5)
    exact = [loss.detach(), *torch.autograd.grad(loss.sum() * scale, exact_operands)]
    traffic = 6 * operands[0].numel() * operands[0].element_size()
    flops = FLOPS * operands[0].numel()
    race(
        Case("sid_loss", mode, shape, dtype, "contiguous", threads, traffic, flops),
        call,
        {
            "eager": lambda: both_ways(eager),
            "compile": lambda: both_ways(compiled),
            **memory_floor(traffic, 3),
        },
        error=worst_error(call(), exact),
        budget=max(4e-7, torch.finfo(dtype).eps),
    )
