"""Shapes, memory layouts and comparisons that tests and benchmarks share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Triton's interpreter takes 20 ms a program: there, samples of no more programs than show an edge.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# Images of the published networks and of the digits, odd sizes, few dimensions, nothing at all.
SHAPES = (
    *([(2, 3, 20, 20)] if INTERPRETED else [(4, 3, 32, 32), (2, 3, 64, 64)]),
    (5, 1, 8, 8),
    (3, 4, 17, 5),
    (2, 3, 5),
    (6, 7),
    (5,),
    (0, 3, 8, 8),
    (2, 0, 4, 4),
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _with_gaps(x: Tensor) -> Tensor:
    return torch.stack((x, torch.full_like(x, torch.nan)), dim=-1)[..., 0]


def _batch_inside(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1)


# Each gives the same values in other strides; gaps are filled with NaN.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": Tensor.contiguous,
    "channels_last": _channels_last,
    "gaps": _with_gaps,
    "batch_inside": _batch_inside,
}


def relative_error(actual: Tensor, exact: Tensor) -> float:
    """Largest deviation over largest exact magnitude; 0 for empty tensors."""
    if exact.numel() == 0:
        return 0.0
    exact = exact.double()
    return ((actual.double() - exact).abs().max() / exact.abs().max().clamp(min=1e-300)).item()


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill every uninitialised float with NaN, so that an element never written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
