"""Operators, one room per kernel family; each room has several back ends behind one door."""

from __future__ import annotations

from sidfast.ops.random import Key, add_noise, dropout, integers, normal, uniform
from sidfast.ops.score_losses import dsm_loss, sid_loss

__all__ = [
    "Key",
    "add_noise",
    "dropout",
    "dsm_loss",
    "integers",
    "normal",
    "sid_loss",
    "uniform",
]
