"""Schemas, output shapes and gradients of the random operators.

A back end is a module with `reasons(op, *args) -> list[str]` and these functions, whose positional
arguments are those of the opaque operators, but for the last, `backend`:

    normal(seed, index, shape, stream, dtype) -> Tensor
    uniform(seed, index, shape, stream, dtype) -> Tensor
    integers(seed, index, shape, high, stream) -> Tensor
    add_noise(x, sigma, scale, seed, index, stream, dtype, memory_format) -> Tensor
    dropout(x, p, seed, index, stream) -> Tensor

`seed` is a 0-d int64 tensor, `index` (B,) int64, `shape` the whole shape with shape[0] == B,
`stream` an int in [0, 2^32), `sigma` and `scale` (B,) float32 (`scale` may be None), all on one
device. `x` may have any strides. Outputs: contiguous for the first three, `noise_like(...)` for the
last two.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sidfast.base.backends import Backend
from sidfast.base.batch import spread
from sidfast.base.contract import define_differentiable, define_opaque, quick_apply

ops = SimpleNamespace()  # the room's operators by name, once registered


def noise_like(
    x: Tensor,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Tensor:
    """An empty output for `x`: with preserve_format a dense `x` hands on its own strides."""
    if (dtype is None or dtype is x.dtype) and memory_format is torch.preserve_format:
        return torch.empty_like(x)
    return torch.empty_like(x, dtype=dtype, memory_format=memory_format)


def _draw_fake(
    seed: Tensor, index: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype, backend: str
) -> Tensor:
    return index.new_empty(shape, dtype=dtype)


def _integers_fake(
    seed: Tensor, index: Tensor, shape: Sequence[int], high: int, stream: int, backend: str
) -> Tensor:
    return index.new_empty(shape)


def _add_noise_fake(x: Tensor, *args: Any) -> Tensor:
    *_, dtype, memory_format, _ = args
    return noise_like(x, dtype, memory_format)


def _dropout_fake(x: Tensor, *args: Any) -> Tensor:
    return noise_like(x)


class _AddNoise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: Tensor, scale: Tensor | None, *args: Any) -> Tensor:
        ctx.dtype = x.dtype
        ctx.save_for_backward(scale)
        return ops._add_noise(x, sigma, scale, *args)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = ctx.saved_tensors
        if scale is not None:
            grad = grad * spread(scale, grad)
        return grad.to(ctx.dtype), *[None] * 8


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, p: float, seed: Tensor, index: Tensor, stream: int, backend: str
    ) -> Tensor:
        ctx.constants = p, stream, backend
        ctx.save_for_backward(seed, index)
        return ops._dropout(x, p, seed, index, stream, backend)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        p, stream, backend = ctx.constants
        return _dropout(grad, p, *ctx.saved_tensors, stream, backend), *[None] * 5


_apply_add_noise = quick_apply(_AddNoise)
_apply_dropout = quick_apply(_Dropout)


def _add_noise(*args: Any) -> Tensor:
    if args[0].requires_grad and torch.is_grad_enabled():
        return _apply_add_noise(*args)
    return ops._add_noise(*args)


def _dropout(*args: Any) -> Tensor:
    if args[0].requires_grad and torch.is_grad_enabled():
        return _apply_dropout(*args)
    return ops._dropout(*args)


def register(backends: Sequence[Backend]) -> None:
    """Define the room's operators, served by `backends`."""
    draw = "Tensor seed, Tensor index, SymInt[] shape, SymInt stream, ScalarType dtype"
    for name in ("normal", "uniform"):
        schema = f"{name}({draw}, str backend) -> Tensor"
        setattr(ops, name, define_opaque(schema, backends=backends, fake=_draw_fake))
    ops.integers = define_opaque(
        "integers(Tensor seed, Tensor index, SymInt[] shape, SymInt high, SymInt stream,"
        " str backend) -> Tensor",
        backends=backends,
        fake=_integers_fake,
    )
    add_noise = (
        "add_noise(Tensor x, Tensor sigma, Tensor? scale, Tensor seed, Tensor index, SymInt stream,"
        " ScalarType dtype, MemoryFormat memory_format, str backend) -> Tensor"
    )
    ops._add_noise = define_opaque(f"_{add_noise}", backends=backends, fake=_add_noise_fake)
    ops.add_noise = define_differentiable(add_noise, _add_noise)
    dropout = (
        "dropout(Tensor x, float p, Tensor seed, Tensor index, SymInt stream, str backend)"
        " -> Tensor"
    )
    ops._dropout = define_opaque(f"_{dropout}", backends=backends, fake=_dropout_fake)
    ops.dropout = define_differentiable(dropout, _dropout)


def plain_calls(device: str) -> dict[str, tuple[Any, ...]]:
    """Arguments of an ordinary float32 call of each operator, to ask back ends for `reasons`."""
    x = torch.empty(2, 3, 8, 8, device=device)
    sigma = torch.empty(2, device=device)
    index = torch.empty(2, dtype=torch.int64, device=device)
    seed = torch.empty((), dtype=torch.int64, device=device)
    return {
        "normal": (seed, index, x.shape, 0, x.dtype),
        "uniform": (seed, index, x.shape, 0, x.dtype),
        "integers": (seed, index, x.shape, 10, 0),
        "add_noise": (x, sigma, None, seed, index, 0, x.dtype, torch.preserve_format),
        "dropout": (x, 0.1, seed, index, 0),
    }
