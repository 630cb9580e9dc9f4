"""The keyed random numbers in CUDA, float32 inside: csrc/random/. Bit for bit those of a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base import cuda
from sidfast.ops.random.contract import noise_like

_OUTPUT_DTYPE = {"normal": 4, "uniform": 4, "add_noise": 6}  # position of dtype in the schema
_STORAGE = (torch.float32, torch.bfloat16, torch.float16)


def reasons(op: str, *args: Any) -> list[str]:
    """Why the CUDA library cannot serve `op(*args)`; empty if it can."""
    found = cuda.reasons(*(arg for arg in args if isinstance(arg, Tensor)))
    allowed = (torch.float32,) if op == "uniform" else _STORAGE
    dtypes = {args[0].dtype} if op in ("add_noise", "dropout") else set()
    if op in _OUTPUT_DTYPE:
        dtypes.add(args[_OUTPUT_DTYPE[op]])
    found += [f"does not compute in {each}" for each in dtypes if each not in allowed]
    if op == "dropout" and round(args[1] * 2**32) >= 2**32:
        found.append("p rounds to 1")
    return found


def normal(
    seed: Tensor, index: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype
) -> Tensor:
    out, index = index.new_empty(shape, dtype=dtype), index.contiguous()
    cuda.library().normal(
        out.data_ptr(),
        cuda.storage(dtype),
        *_rows(shape),
        *_key(seed, index, stream),
        *cuda.where(out),
    )
    return out


def uniform(
    seed: Tensor, index: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype
) -> Tensor:
    out, index = index.new_empty(shape, dtype=dtype), index.contiguous()
    cuda.library().uniform(
        out.data_ptr(), *_rows(shape), *_key(seed, index, stream), *cuda.where(out)
    )
    return out


def integers(seed: Tensor, index: Tensor, shape: Sequence[int], high: int, stream: int) -> Tensor:
    out, index = index.new_empty(shape), index.contiguous()
    cuda.library().integers(
        out.data_ptr(), high, *_rows(shape), *_key(seed, index, stream), *cuda.where(out)
    )
    return out


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
    result = noise_like(x, dtype, memory_format)
    x, out = _served(x, result)
    index, sigma = index.contiguous(), sigma.contiguous()
    scale = None if scale is None else scale.contiguous()
    cuda.library().add_noise(
        x.data_ptr(),
        cuda.storage(x.dtype),
        not x.is_contiguous(),
        out.data_ptr(),
        cuda.storage(dtype),
        not out.is_contiguous(),
        sigma.data_ptr(),
        0 if scale is None else scale.data_ptr(),
        *_images(x),
        *_key(seed, index, stream),
        *cuda.where(x),
    )
    return result if out is result else result.copy_(out)


def dropout(x: Tensor, p: float, seed: Tensor, index: Tensor, stream: int) -> Tensor:
    result = noise_like(x)
    x, out = _served(x, result)
    index = index.contiguous()
    cuda.library().dropout(
        x.data_ptr(),
        not x.is_contiguous(),
        out.data_ptr(),
        not out.is_contiguous(),
        cuda.storage(x.dtype),
        round(p * 2**32),
        1 / (1 - p),
        *_images(x),
        *_key(seed, index, stream),
        *cuda.where(x),
    )
    return result if out is result else result.copy_(out)


def _key(seed: Tensor, index: Tensor, stream: int) -> tuple[int, int, int]:
    """The key for the library, which reads it when the kernel runs; `index` is contiguous."""
    return seed.data_ptr(), index.data_ptr(), stream


def _rows(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _images(x: Tensor) -> tuple[int, int, int]:
    """(samples, channels, pixels) of `x`."""
    if x.dim() == 4:
        return x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    return x.shape[0], 1, math.prod(x.shape[1:])


def _served(x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """`x` and `out` if the kernels serve their strides, else contiguous stand-ins."""
    if x.is_contiguous() and out.is_contiguous():
        return x, out
    if _tiled(x) and _tiled(out):
        return x, out
    if not out.is_contiguous():
        out = torch.empty_like(out, memory_format=torch.contiguous_format)
    return x.contiguous(), out


def _tiled(x: Tensor) -> bool:
    """Whether kernels that serve channels_last on either side serve `x`."""
    if x.dim() != 4 or not (
        x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    ):
        return False
    return cuda.library().tileable(x.data_ptr(), *_images(x)[1:])
