"""add_noise against x + sigma * torch.randn_like(x)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import THREADS, Case, memory_floor, worst_error
from torch import Tensor

from sidfast import ops
from sidfast.base.batch import spread
from sidfast.base.philox import normal64

FLOPS = 26  # an element: half a logarithm, root, sine and cosine, and one fma
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def eager(x: Tensor, sigma: Tensor) -> Tensor:
    return x + sigma * torch.randn_like(x)


def cases() -> list[tuple[int, tuple[int, ...], torch.dtype, str]]:
    images, digits = (128, 3, 64, 64), (128, 1, 8, 8)
    every = [(threads, images, torch.float32, "contiguous") for threads in THREADS]
    most = THREADS[-1]
    return [
        *every,
        (most, images, torch.float32, "channels_last"),
        (most, images, torch.bfloat16, "contiguous"),
        (most, digits, torch.float32, "contiguous"),
    ]


@pytest.mark.parametrize(("threads", "shape", "dtype", "layout"), cases(), indirect=["threads"])
def bench_add_noise(
    race: Callable[..., None],
    threads: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: str,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype).to(memory_format=LAYOUTS[layout])
    sigma, index = torch.rand(shape[0]) + 0.1, torch.arange(shape[0])
    column = spread(sigma, x).to(dtype)
    compiled = torch.compile(eager)

    def call() -> Tensor:
        return ops.add_noise(x, sigma, seed=1, index=index, stream=2, backend="native")

    noise = normal64(torch.tensor(1), index, shape, 2)
    exact = x.double() + spread(sigma, x).double() * noise
    traffic = 2 * x.numel() * x.element_size()
    race(
        Case("add_noise", "forward", shape, dtype, layout, threads, traffic, FLOPS * x.numel()),
        call,
        {
            "eager": lambda: eager(x, column),
            "compile": lambda: compiled(x, column),
            **memory_floor(traffic, 1),
        },
        error=worst_error([call()], [exact]),
        budget=max(4e-6, torch.finfo(dtype).eps),
    )
