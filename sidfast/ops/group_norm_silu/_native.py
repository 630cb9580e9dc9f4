"""Group normalisation and SiLU in C++ on a CPU, channels last: csrc/group_norm_silu/.

Contiguous images are left to PyTorch, whose own kernels are quick there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base import native
from sidfast.ops.group_norm_silu.contract import gradient_outputs, outputs

_STORAGE = (torch.float32, torch.bfloat16, torch.float16)


def reasons(op: str, *args: Any) -> list[str]:
    """Why the native library cannot serve `op(*args)`; empty if it can."""
    if op == "group_norm_silu_backward":
        args = args[1:]
    x, _, weight, bias, _, *per_sample = args[:8]
    found = list(native.reasons())
    if x.device.type != "cpu":
        found.append("serves CPU tensors only")
    if x.dtype not in _STORAGE:
        found.append(f"does not compute in {x.dtype}")
    if weight.dtype != torch.float32 or bias.dtype != torch.float32:
        found.append("takes weight and bias in float32 only")
    if any(each is not None and each.dtype != torch.float32 for each in per_sample):
        found.append("takes offset, scale and shift in float32 only")
    if x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        found.append("serves channels_last (B, C, H, W) only")
    return found


def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    offset: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    y, mean, rstd = outputs(x, num_groups)
    operands = _dense(x, weight, bias, offset, scale, shift, mean, rstd)
    native.cpu_library().group_norm(
        _pointers(operands), y.data_ptr(), *_sizes(x, num_groups), eps, silu, torch.get_num_threads()
    )
    return y, mean, rstd


def group_norm_silu_backward(
    grad: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    offset: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    silu: bool,
    mean: Tensor,
    rstd: Tensor,
    need: Sequence[bool],
) -> tuple[Tensor, ...]:
    made = gradient_outputs(x, (weight, bias, offset, scale, shift), need)
    operands = _dense(x, weight, bias, offset, scale, shift, mean, rstd)
    grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
    native.cpu_library().group_norm_backward(
        _pointers(operands),
        _pointers((grad, *(each if each.numel() else None for each in made))),
        *(*_sizes(x, num_groups), eps, silu, torch.get_num_threads()),
    )
    return made


def _sizes(x: Tensor, num_groups: int) -> tuple[Any, ...]:
    """dtype, samples, channels, pixels and groups for the library."""
    samples, channels, height, width = x.shape
    return native.storage(x.dtype), samples, channels, height * width, num_groups


def _dense(x: Tensor, *others: Tensor | None) -> list[Tensor | None]:
    """`x`, which is channels_last, and the others contiguous; they must outlive the call."""
    return [x, *(None if each is None else each.contiguous() for each in others)]


def _pointers(tensors: Sequence[Tensor | None]) -> tuple[int, ...]:
    return tuple(0 if each is None else each.data_ptr() for each in tensors)
