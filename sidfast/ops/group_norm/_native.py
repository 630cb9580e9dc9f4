"""Group normalisation and SiLU in C++ on a CPU, channels last: csrc/group_norm/.

Contiguous images are left to PyTorch, whose own kernels are quick there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base import native
from sidfast.ops.group_norm.contract import gradient_outputs, outputs

_STORAGE = (torch.float32, torch.bfloat16, torch.float16)


def reasons(op: str, *args: Any) -> list[str]:
    """Why the native library cannot serve `op(*args)`; empty if it can."""
    start = 1 if op == "group_norm_silu_backward" else 0
    x = args[start]
    found = native.reasons()
    if not x.is_cpu:
        found.append("serves CPU tensors only")
    if x.dtype not in _STORAGE:
        found.append(f"does not compute in {x.dtype}")
    for position in (2, 3, 5, 6, 7):
        parameter = args[start + position]
        if parameter is not None and parameter.dtype != torch.float32:
            found.append("takes weight, bias, offset, scale and shift in float32 only")
            break
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
) -> tuple[Tensor, Tensor]:
    y, statistics = outputs(x, num_groups)
    operands = [_contiguous(each) for each in (weight, bias, offset, scale, shift)]
    native.cpu_library().group_norm(
        x.data_ptr(),
        [0 if each is None else each.data_ptr() for each in operands],
        statistics.data_ptr(),
        y.data_ptr(),
        native.storage(x.dtype),
        x.shape,
        num_groups,
        eps,
        silu,
        torch.get_num_threads(),
    )
    return y, statistics


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
    statistics: Tensor,
    need: Sequence[bool],
) -> tuple[Tensor, ...]:
    made = gradient_outputs(x, (weight, bias, offset, scale, shift), need)
    operands = [_contiguous(each) for each in (weight, bias, offset, scale, shift)]
    grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
    native.cpu_library().group_norm_backward(
        x.data_ptr(),
        [0 if each is None else each.data_ptr() for each in operands],
        statistics.data_ptr(),
        grad.data_ptr(),
        [each.data_ptr() for each in made],
        native.storage(x.dtype),
        x.shape,
        num_groups,
        eps,
        silu,
        torch.get_num_threads(),
    )
    return made


def _contiguous(x: Tensor | None) -> Tensor | None:
    """`x` as the library reads it; it must outlive the call."""
    return None if x is None else x.contiguous()
