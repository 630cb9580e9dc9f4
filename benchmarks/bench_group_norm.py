"""group_norm_silu against silu(group_norm(x + offset)) in eager torch, and under torch.compile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from conftest import THREADS, Case, memory_floor, worst_error
from torch import Tensor

from sidfast import ops

FLOPS = 40  # an element, forward and backward: two exponentials and divisions, and the sums
SHAPES = (((64, 48, 8, 8), 12), ((16, 128, 32, 32), 32))  # the digits demo's, CIFAR-10's
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def eager(x: Tensor, groups: int, weight: Tensor, bias: Tensor, offset: Tensor) -> Tensor:
    return F.silu(F.group_norm(x + offset[:, :, None, None], groups, weight, bias, 1e-6))


@pytest.mark.parametrize("threads", THREADS, indirect=True)
@pytest.mark.parametrize(("shape", "groups"), SHAPES, ids=str)
def bench_group_norm_silu(
    race: Callable[..., None], threads: int, shape: tuple[int, ...], groups: int
) -> None:
    torch.manual_seed(0)
    plain = torch.randn(shape)
    weight, bias = torch.randn(2, shape[1])
    offset, upstream = torch.randn(shape[:2]), torch.randn(shape)
    compiled = torch.compile(eager)

    def ours(*args: Tensor | int) -> Tensor:
        x, groups, weight, bias, offset = args
        return ops.group_norm_silu(x, groups, weight, bias, 1e-6, offset=offset, backend="native")

    def grads(function: Callable[..., Tensor], layout: str, wide: bool = False) -> list[Tensor]:
        form = LAYOUTS[layout]
        dtype = torch.float64 if wide else torch.float32
        x, w, b, o = (
            each.to(dtype).requires_grad_()
            for each in (plain.to(memory_format=form), weight, bias, offset)
        )
        y = function(x, groups, w, b, o)
        return [
            y.detach(),
            *torch.autograd.grad(y, (x, w, b, o), upstream.to(dtype).to(memory_format=form)),
        ]

    made, exact = grads(ours, "channels_last"), grads(eager, "contiguous", wide=True)
    traffic = 5 * plain.numel() * 4  # x twice, y, and both gradients
    race(
        Case(
            "group_norm_silu",
            "forward+backward",
            shape,
            torch.float32,
            "channels_last",
            threads,
            traffic,
            FLOPS * plain.numel(),
        ),
        lambda: grads(ours, "channels_last"),
        {
            "eager": lambda: grads(eager, "channels_last"),
            "contiguous": lambda: grads(eager, "contiguous"),
            "compile": lambda: grads(compiled, "channels_last"),
            **memory_floor(traffic, 1),
        },
        error=worst_error(made, exact),
        budget=1e-5,
    )
