"""Checks of tensor arguments that several doors share."""

from __future__ import annotations

import torch
from torch import Tensor

from sidfast.base.errors import InputError

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_tensor(name: str, value: object, fix: str = "pass a tensor") -> None:
    """Raise InputError unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise InputError(expected=f"{name} as a torch.Tensor", got=type(value).__name__, fix=fix)


def check_dtype(name: str, dtype: torch.dtype, allowed: tuple[torch.dtype, ...] = FLOATS) -> None:
    """Raise InputError unless `dtype` is one of `allowed`."""
    if dtype not in allowed:
        raise InputError(
            expected=f"{name} as one of {', '.join(map(str, allowed))}",
            got=dtype,
            fix=f"convert {name} first",
        )


def check_device(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Raise InputError unless both tensors are on one device."""
    if x.device != other.device:
        raise InputError(
            expected=f"{name} and {other_name} on one device",
            got=f"{x.device} and {other.device}",
            fix=f"pass {other_name}.to({name}.device)",
        )


def per_sample(name: str, value: Tensor, batch_name: str, batch: Tensor) -> Tensor:
    """`value`, one float32 per sample as (B,) or (B, 1, 1, ...), as (B,).

    Raises:
        InputError: no tensor, another dtype, a device other than `batch`'s, or another size than
            its first.
    """
    size = batch.shape[0]
    if (
        isinstance(value, Tensor)
        and value.dim() == 1
        and value.numel() == size
        and value.dtype is torch.float32
        and value.device == batch.device
    ):
        return value
    check_tensor(name, value, "give one float32 value per sample, as torch.full((B,), 0.5)")
    check_dtype(name, value.dtype, (torch.float32,))
    check_device(batch_name, batch, name, value)
    if value.dim() == 0 or value.shape[0] != size or value.numel() != size:
        raise InputError(
            expected=f"{name} of shape ({size},) or ({size}, 1, 1, 1)",
            got=tuple(value.shape),
            fix="give one value per sample",
        )
    return value.reshape(size)
