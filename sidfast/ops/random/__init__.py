"""Random numbers as a pure function of (seed, stream, sample index, element).

The words come from Philox4x32-10 with key = the two halves of `seed` and counter = (e >> 2,
index & 0xffffffff, index >> 32, stream), where e < 2^34 is an element's offset inside its sample in
logical C, H, W order, whatever the strides; word e & 3 serves element e. So sample `index[b]` gets
the same numbers in every batch, split, memory format and thread count, and a run needs no generator
state. Words are bit-equal on every back end; normals agree to 4e-6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sidfast.base.backends import Backend
from sidfast.base.checks import FLOATS, check_device, check_dtype, check_tensor, per_sample
from sidfast.base.errors import InputError
from sidfast.base.key import MOST_ELEMENTS, Key, check_indexed, seed_tensor
from sidfast.ops.random import contract

__all__ = ["BACKENDS", "Key", "add_noise", "dropout", "integers", "normal", "uniform"]

BACKENDS = (
    Backend("native", "sidfast.ops.random._native"),
    Backend("triton", "sidfast.ops.random._triton"),
    Backend("cuda", "sidfast.ops.random._cuda"),
    Backend("reference", "sidfast.ops.random.reference"),
)
contract.register(BACKENDS)


def normal(
    shape: Sequence[int],
    *,
    seed: int | Tensor,
    index: Tensor,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> Tensor:
    """Unit normals, by Box and Muller's transform of pairs of words: |value| <= 5.77.

    Args:
        shape: of the result, batch included: shape[0] == len(index).
        seed: int in [-2^63, 2^63), or a 0-d int64 tensor on `index`'s device.
        index: (B,) int64, the sample numbers.
        stream: 0 ... 2^32 - 1; streams are independent.
        dtype: float32, bfloat16, float16 or float64 of the result.
        backend: a name from `BACKENDS`, or "auto".

    Returns:
        contiguous tensor of `shape` on `index`'s device.

    Raises:
        InputError: an argument of the wrong type, shape, range or device.
        BackendError: the back end asked for cannot serve the call.
    """
    check_dtype("dtype", dtype)
    check_indexed(shape, index)
    seed = seed_tensor(seed, index, stream)
    return contract.ops.normal(seed, index, shape, stream, dtype, backend)


def uniform(
    shape: Sequence[int],
    *,
    seed: int | Tensor,
    index: Tensor,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> Tensor:
    """Uniform numbers in [0, 1): the upper 24 bits of a word, times 2^-24.

    Arguments, result and errors are those of `normal`, but `dtype` is float32 or float64: a shorter
    type would round some numbers up to 1.
    """
    check_dtype("dtype", dtype, (torch.float32, torch.float64))
    check_indexed(shape, index)
    seed = seed_tensor(seed, index, stream)
    return contract.ops.uniform(seed, index, shape, stream, dtype, backend)


def integers(
    shape: Sequence[int],
    high: int,
    *,
    seed: int | Tensor,
    index: Tensor,
    stream: int = 0,
    backend: str = "auto",
) -> Tensor:
    """Whole numbers in [0, high), as int64: (word * high) >> 32, so 1 <= high <= 2^32.

    The other arguments and the errors are those of `normal`.
    """
    if not 1 <= high <= 2**32:
        raise InputError(expected="1 <= high <= 2^32", got=high, fix="draw from a smaller range")
    check_indexed(shape, index)
    seed = seed_tensor(seed, index, stream)
    return contract.ops.integers(seed, index, shape, high, stream, backend)


def add_noise(
    x: Tensor,
    sigma: Tensor,
    *,
    seed: int | Tensor,
    index: Tensor,
    stream: int = 0,
    scale: Tensor | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    backend: str = "auto",
) -> Tensor:
    """scale_b (x + sigma_b eps) in one pass, where eps is what `normal` would draw.

    Computed in float32 (float64 for a float64 `x`). The gradient with respect to `x` is the
    identity, times `scale`; `sigma` and `scale` have none. Autocast changes nothing.

    Args:
        x: (B, ...) float32, bfloat16, float16 or float64, any strides.
        sigma: (B,) or (B, 1, 1, ...) float32, noise level of each sample.
        seed, index, stream, backend: as in `normal`.
        scale: like `sigma`; None means 1.
        dtype: of the result; None means `x`'s.
        memory_format: torch.contiguous_format, torch.channels_last (four dimensions), or None for
            `x`'s own strides (dense in `x`'s order of dimensions, if `x` has gaps or repeats).

    Raises:
        InputError: an argument of the wrong type, shape, range or device, or a `sigma` or `scale`
            that wants a gradient.
        BackendError: the back end asked for cannot serve the call.
    """
    _check_input(x, index)
    if dtype is None:
        dtype = x.dtype
    else:
        check_dtype("dtype", dtype)
    memory_format = _check_format(memory_format, x)
    sigma = _constant("sigma", sigma, x)
    scale = None if scale is None else _constant("scale", scale, x)
    seed = seed_tensor(seed, index, stream)
    return contract.ops.add_noise(
        x, sigma, scale, seed, index, stream, dtype, memory_format, backend
    )


def dropout(
    x: Tensor,
    p: float,
    *,
    seed: int | Tensor,
    index: Tensor,
    stream: int = 0,
    backend: str = "auto",
) -> Tensor:
    """Zero each element with probability `p` and multiply the others by 1 / (1 - p).

    An element is kept if and only if its word is at least round(p 2^32). The backward pass makes
    the mask again from the key: nothing but the key is saved.

    Args:
        x: (B, ...) float32, bfloat16, float16 or float64, any strides.
        p: 0 <= p < 1; 0 returns `x` itself.
        seed, index, stream, backend: as in `normal`.

    Returns:
        tensor of `x`'s dtype and strides.

    Raises:
        InputError, BackendError: as in `add_noise`.
    """
    if not 0 <= p < 1:
        raise InputError(expected="0 <= p < 1", got=p, fix="pass the probability of dropping")
    _check_input(x, index)
    seed = seed_tensor(seed, index, stream)
    if p == 0:
        return x
    return contract.ops.dropout(x, p, seed, index, stream, backend)


def _check_input(x: Tensor, index: Tensor) -> None:
    if (
        isinstance(x, Tensor)
        and isinstance(index, Tensor)
        and x.dtype in FLOATS
        and x.device == index.device
        and x.dim()
        and x.shape[0] == index.shape[0]
        and x.numel() <= MOST_ELEMENTS
    ):
        return
    check_tensor("x", x)
    check_dtype("x", x.dtype)
    check_indexed(x.shape, index)
    check_device("x", x, "index", index)


def _check_format(memory_format: torch.memory_format | None, x: Tensor) -> torch.memory_format:
    if memory_format is None:
        return torch.preserve_format
    if memory_format == torch.contiguous_format:
        return memory_format
    if memory_format != torch.channels_last or x.dim() != 4:
        raise InputError(
            expected="memory_format contiguous_format, None, or channels_last of four dimensions",
            got=f"{memory_format} and shape {tuple(x.shape)}",
            fix="pass None to keep the input's strides",
        )
    return memory_format


def _constant(name: str, value: Tensor, x: Tensor) -> Tensor:
    if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
        raise InputError(
            expected=f"{name} without gradient",
            got="requires_grad=True",
            fix=f"pass {name}.detach()",
        )
    return per_sample(name, value, "x", x)
