"""Eager PyTorch definition of the keyed random numbers, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sidfast.base.batch import spread
from sidfast.base.philox import UNIT, multiply, noised, normal64, words
from sidfast.ops.random.contract import noise_like


def reasons(op: str, *args: object) -> list[str]:
    """The reference serves every call on every device."""
    return []


def normal(
    seed: Tensor, index: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype
) -> Tensor:
    return normal64(seed, index, shape, stream).to(dtype)


def uniform(
    seed: Tensor, index: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype
) -> Tensor:
    return (words(seed, index, shape, stream) >> 8).to(dtype) * UNIT


def integers(seed: Tensor, index: Tensor, shape: Sequence[int], high: int, stream: int) -> Tensor:
    return multiply(words(seed, index, shape, stream), high)[0].contiguous()


def add_noise(
    x: Tensor,
    sigma: Tensor,
    scale: Tensor | None,
    seed: Tensor,
    index: Tensor,
    stream: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    result = noised(x.to(torch.promote_types(x.dtype, torch.float32)), sigma, seed, index, stream)
    if scale is not None:
        result = result * spread(scale, x)
    return noise_like(x, dtype, memory_format).copy_(result)


def dropout(x: Tensor, p: float, seed: Tensor, index: Tensor, stream: int) -> Tensor:
    kept = words(seed, index, x.shape, stream) >= round(p * 2**32)
    compute = torch.promote_types(x.dtype, torch.float32)
    scaled = x.to(compute) * (1 / (1 - p))
    return noise_like(x).copy_(torch.where(kept, scaled, 0))
