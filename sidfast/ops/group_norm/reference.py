"""Group normalisation and SiLU in eager PyTorch, differentiable; the definition in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sidfast.base.batch import spread_channels


def reasons(op: str, *args: object) -> list[str]:
    """The reference serves every call on every device."""
    return []


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
) -> Tensor:
    """See `sidfast.ops.group_norm`."""
    wide = torch.promote_types(x.dtype, torch.float32)
    h = x.to(wide)
    if offset is not None:
        h = h + spread_channels(offset.to(wide), x)
    # In channels_last, torch 2.13 crashes on a CPU if bias needs a gradient and weight does not.
    h = F.group_norm(h.contiguous(), num_groups, weight.to(wide), bias.to(wide), eps)
    if scale is not None and shift is not None:
        factor = spread_channels(scale.to(wide), x) + 1
        h = torch.addcmul(spread_channels(shift.to(wide), x), h, factor)
    y = (F.silu(h) if silu else h).to(x.dtype)
    last = x.dim() == 4 and not x.is_contiguous()
    return y.contiguous(memory_format=torch.channels_last) if last else y
