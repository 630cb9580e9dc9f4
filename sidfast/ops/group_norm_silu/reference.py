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
    """See `sidfast.ops.group_norm_silu`."""
    wide = torch.promote_types(x.dtype, torch.float32)
    h = x.to(wide)
    if offset is not None:
        h = h + spread_channels(offset.to(wide), x)
    h = F.group_norm(h, num_groups, weight.to(wide), bias.to(wide), eps)
    if scale is not None and shift is not None:
        factor = spread_channels(scale.to(wide), x) + 1
        h = torch.addcmul(spread_channels(shift.to(wide), x), h, factor)
    return (F.silu(h) if silu else h).to(x.dtype)
