"""Data sets as pairs of tensors: images (N, C, H, W) in [-1, 1] and labels (N,)."""

from __future__ import annotations

from sidfast.data.digits import digits

__all__ = ["digits"]
