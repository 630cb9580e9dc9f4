"""Group normalisation with the SiLU that follows it in U-Nets, in one pass each way."""

from __future__ import annotations

import torch
from torch import Tensor

from sidfast.base import native
from sidfast.base.backends import AUTO, Backend
from sidfast.base.checks import FLOATS, check_device, check_dtype
from sidfast.base.errors import InputError
from sidfast.ops.group_norm import contract

__all__ = ["BACKENDS", "group_norm_silu", "preferred_format"]

BACKENDS = (
    Backend("native", "sidfast.ops.group_norm._native"),
    Backend("reference", "sidfast.ops.group_norm.reference"),
)
contract.register(BACKENDS)


def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    offset: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    silu: bool = True,
    backend: str = AUTO,
) -> Tensor:
    """silu(GN(x + offset) (1 + scale) + shift), GN with `weight` and `bias`.

    Group normalisation as in arXiv 1803.08494; `offset` is how DDPM++ adds its embedding, `scale`
    and `shift` how ADM does (arXiv 2105.05233). Statistics and arithmetic in float32 (float64 for a
    float64 x) whatever the storage type. A second derivative exists in the reference alone.

    Args:
        x: (B, C, *) in float32, bfloat16, float16 or float64; any strides.
        num_groups: of C / num_groups neighbouring channels each.
        weight, bias: (C,) float32, or float64 for a float64 x.
        eps: added to the variance.
        offset, scale, shift: (B, C), any of x's types, or None for none; scale and shift together.
        silu: False leaves the SiLU out.
        backend: a name from `BACKENDS`, or "auto".

    Returns:
        (B, C, *) in x's dtype; contiguous and channels_last x hand on their memory format.

    Raises:
        InputError: an argument of the wrong type, shape or device.
        BackendError: the back end asked for cannot serve the call.
    """
    shape = x.shape
    if len(shape) < 2 or num_groups < 1 or shape[1] % num_groups:
        raise InputError(
            expected=f"x (B, C, ...) with C divisible by num_groups = {num_groups}",
            got=tuple(shape),
            fix="pass a divisor of the channel count",
        )
    if x.dtype not in FLOATS:
        check_dtype("x", x.dtype)
    _check("weight", weight, shape[1:2], x)
    _check("bias", bias, shape[1:2], x)
    if offset is not None:
        _check("offset", offset, shape[:2], x)
    if (scale is None) != (shift is None):
        raise InputError(
            expected="scale and shift together",
            got=f"only {'shift' if scale is None else 'scale'}",
            fix="pass zeros for the other",
        )
    if scale is not None and shift is not None:
        _check("scale", scale, shape[:2], x)
        _check("shift", shift, shape[:2], x)
    return contract.ops.group_norm_silu(
        x, num_groups, weight, bias, eps, offset, scale, shift, silu, backend
    )


def preferred_format(device: str) -> torch.memory_format:
    """The memory format of (B, C, H, W) tensors on a type of device in which this room is fast.

    A compiler chooses layouts itself, and fuses the reference as well as we could.
    """
    fast = device == "cpu" and not torch.compiler.is_compiling() and not native.reasons()
    return torch.channels_last if fast else torch.contiguous_format


def _check(name: str, value: Tensor, shape: torch.Size, x: Tensor) -> None:
    if value.shape != shape:
        raise InputError(
            expected=f"{name} of shape {tuple(shape)}",
            got=tuple(value.shape),
            fix="give one value per channel" + (" and sample" if len(shape) == 2 else ""),
        )
    if value.device != x.device:
        check_device("x", x, name, value)
