"""Values per sample beside batches of images."""

from __future__ import annotations

from torch import Tensor


def spread(value: Tensor, batch: Tensor) -> Tensor:
    """(B,) values as (B, 1, ...), to broadcast over a `batch` of shape (B, ...)."""
    return value.view(-1, *[1] * (batch.dim() - 1))


def spread_channels(value: Tensor, batch: Tensor) -> Tensor:
    """(B, C) values as (B, C, 1, ...), to broadcast over a `batch` of shape (B, C, ...)."""
    return value.view(*value.shape, *[1] * (batch.dim() - 2))
