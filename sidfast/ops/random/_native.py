"""The keyed random numbers in C++ on a CPU, float32 inside: csrc/random/."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base import native
from sidfast.ops.random.contract import noise_like

_OUTPUT_DTYPE = {"normal": 4, "uniform": 4, "add_noise": 6}  # position of dtype in the schema
_STORAGE = (torch.float32, torch.bfloat16, torch.float16)


def reasons(op: str, *args: Any) -> list[str]:
    """Why the native library cannot serve `op(*args)`; empty if it can."""
    found = native.reasons()
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if any(tensor.device.type != "cpu" for tensor in tensors):
        found.append("serves CPU tensors only")
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
    library = native.cpu_library()
    library.normal(out.data_ptr(), native.storage(dtype), *_draw(seed, index, shape, stream))
    return out


def uniform(
    seed: Tensor, index: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype
) -> Tensor:
    out, index = index.new_empty(shape, dtype=dtype), index.contiguous()
    native.cpu_library().uniform(out.data_ptr(), *_draw(seed, index, shape, stream))
    return out


def integers(seed: Tensor, index: Tensor, shape: Sequence[int], high: int, stream: int) -> Tensor:
    out, index = index.new_empty(shape), index.contiguous()
    native.cpu_library().integers(out.data_ptr(), high, *_draw(seed, index, shape, stream))
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
    x, out, index = _readable(x), _writable(result), index.contiguous()
    sigma = sigma.contiguous()
    scale = None if scale is None else scale.contiguous()
    native.cpu_library().add_noise(
        x.data_ptr(),
        native.storage(x.dtype),
        _channels_last(x),
        out.data_ptr(),
        native.storage(dtype),
        _channels_last(out),
        sigma.data_ptr(),
        0 if scale is None else scale.data_ptr(),
        *_images(x),
        *_key(seed, index, stream),
    )
    return result if out is result else result.copy_(out)


def dropout(x: Tensor, p: float, seed: Tensor, index: Tensor, stream: int) -> Tensor:
    result = noise_like(x)
    x, out, index = _readable(x), _writable(result), index.contiguous()
    native.cpu_library().dropout(
        x.data_ptr(),
        _channels_last(x),
        out.data_ptr(),
        _channels_last(out),
        native.storage(x.dtype),
        round(p * 2**32),
        1 / (1 - p),
        *_images(x),
        *_key(seed, index, stream),
    )
    return result if out is result else result.copy_(out)


def _key(seed: Tensor, index: Tensor, stream: int) -> tuple[int, int, int, int]:
    """Key and thread count for the library; `index` is contiguous and outlives the call."""
    return int(seed.item()), index.data_ptr(), stream, torch.get_num_threads()


def _draw(seed: Tensor, index: Tensor, shape: Sequence[int], stream: int) -> tuple[int, ...]:
    return shape[0], math.prod(shape[1:]), *_key(seed, index, stream)


def _images(x: Tensor) -> tuple[int, int, int]:
    """(samples, channels, pixels) of `x`."""
    if x.dim() == 4:
        return x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    return x.shape[0], 1, math.prod(x.shape[1:])


def _channels_last(x: Tensor) -> bool:
    """Whether a dense `x` is stored as N, HW, C and not at the same time as N, C, HW."""
    return not x.is_contiguous()


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or (
        x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    )


def _readable(x: Tensor) -> Tensor:
    return x if _dense(x) else x.contiguous()


def _writable(out: Tensor) -> Tensor:
    return out if _dense(out) else torch.empty_like(out, memory_format=torch.contiguous_format)
