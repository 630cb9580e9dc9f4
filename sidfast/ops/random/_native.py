"""The keyed random numbers in C++ on a CPU, float32 inside: csrc/random/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base import native
from sidfast.ops.random.contract import noise_like

_OUTPUT_DTYPE = {"normal": 4, "uniform": 4, "add_noise": 6}  # position of dtype in the schema
_STORAGE = (torch.float32, torch.bfloat16, torch.float16)
_ALLOWED = {  # dtypes, where there is a choice
    "normal": _STORAGE,
    "uniform": (torch.float32,),
    "add_noise": _STORAGE,
    "dropout": _STORAGE,
}


def reasons(op: str, *args: Any) -> list[str]:
    """Why the native library cannot serve `op(*args)`; empty if it can."""
    found, first = native.reasons(), args[0]
    if not first.is_cpu:  # the others are on its device
        found.append("serves CPU tensors only")
    allowed = _ALLOWED.get(op)
    if allowed:
        out = args[_OUTPUT_DTYPE[op]] if op in _OUTPUT_DTYPE else first.dtype
        if out not in allowed:
            found.append(f"does not compute in {out}")
        if op == "add_noise" and first.dtype is not out and first.dtype not in allowed:
            found.append(f"does not compute in {first.dtype}")
    if op == "dropout" and round(args[1] * 2**32) >= 2**32:
        found.append("p rounds to 1")
    return found


def normal(
    seed: Tensor, index: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype
) -> Tensor:
    out, index = index.new_empty(shape, dtype=dtype), index.contiguous()
    native.cpu_library().normal(
        out.data_ptr(),
        native.storage(dtype),
        *_rows(out),
        seed.item(),
        index.data_ptr(),
        stream,
        torch.get_num_threads(),
    )
    return out


def uniform(
    seed: Tensor, index: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype
) -> Tensor:
    out, index = index.new_empty(shape, dtype=dtype), index.contiguous()
    native.cpu_library().uniform(
        out.data_ptr(),
        *_rows(out),
        seed.item(),
        index.data_ptr(),
        stream,
        torch.get_num_threads(),
    )
    return out


def integers(seed: Tensor, index: Tensor, shape: Sequence[int], high: int, stream: int) -> Tensor:
    out, index = index.new_empty(shape), index.contiguous()
    native.cpu_library().integers(
        out.data_ptr(),
        high,
        *_rows(out),
        seed.item(),
        index.data_ptr(),
        stream,
        torch.get_num_threads(),
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
    x, x_last = _dense(x, Tensor.contiguous)
    out, out_last = _dense(result, _contiguous_like)
    index, sigma = index.contiguous(), sigma.contiguous()
    scale = None if scale is None else scale.contiguous()
    native.cpu_library().add_noise(
        x.data_ptr(),
        native.storage(x.dtype),
        x_last,
        out.data_ptr(),
        native.storage(dtype),
        out_last,
        sigma.data_ptr(),
        0 if scale is None else scale.data_ptr(),
        *(_images(x) if x_last or out_last else _planes(x)),
        seed.item(),
        index.data_ptr(),
        stream,
        torch.get_num_threads(),
    )
    return result if out is result else result.copy_(out)


def dropout(x: Tensor, p: float, seed: Tensor, index: Tensor, stream: int) -> Tensor:
    result = noise_like(x)
    x, x_last = _dense(x, Tensor.contiguous)
    out, out_last = _dense(result, _contiguous_like)
    index = index.contiguous()
    native.cpu_library().dropout(
        x.data_ptr(),
        x_last,
        out.data_ptr(),
        out_last,
        native.storage(x.dtype),
        round(p * 2**32),
        1 / (1 - p),
        *(_images(x) if x_last or out_last else _planes(x)),
        seed.item(),
        index.data_ptr(),
        stream,
        torch.get_num_threads(),
    )
    return result if out is result else result.copy_(out)


def _rows(x: Tensor) -> tuple[int, int]:
    """(samples, elements of each) of `x`."""
    samples = x.shape[0]
    return samples, x.numel() // (samples or 1)


def _planes(x: Tensor) -> tuple[int, int, int]:
    """(samples, channels, pixels) of a contiguous `x`, where channels need not be told apart."""
    samples = x.shape[0]
    return samples, 1, x.numel() // (samples or 1)


def _images(x: Tensor) -> tuple[int, int, int]:
    """(samples, channels, pixels) of a four-dimensional `x`."""
    samples, channels, height, width = x.shape
    return samples, channels, height * width


def _dense(x: Tensor, otherwise: Callable[[Tensor], Tensor]) -> tuple[Tensor, bool]:
    """`x`, or otherwise(x) if the library cannot walk it, and whether it is stored as N, HW, C."""
    if x.is_contiguous():
        return x, False
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x, True
    return otherwise(x), False


def _contiguous_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
