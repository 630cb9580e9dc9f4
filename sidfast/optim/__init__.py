"""Optimizers of the two updates."""

from __future__ import annotations

from sidfast.optim.adam_ema import AdamEMA
from sidfast.optim.ema import ema_beta

__all__ = ["AdamEMA", "ema_beta"]
