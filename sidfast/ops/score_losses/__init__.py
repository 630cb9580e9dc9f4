"""Losses of score distillation, one value per sample; their gradients come from the same pass."""

from __future__ import annotations

from sidfast.base.backends import Backend
from sidfast.ops.score_losses import contract
from sidfast.ops.score_losses.dsm import dsm_loss, dsm_loss_raw
from sidfast.ops.score_losses.sid import sid_loss, sid_loss_raw
from sidfast.ops.score_losses.vsd import vsd_loss

__all__ = ["BACKENDS", "dsm_loss", "dsm_loss_raw", "sid_loss", "sid_loss_raw", "vsd_loss"]

BACKENDS = (
    Backend("native", "sidfast.ops.score_losses._native"),
    Backend("triton", "sidfast.ops.score_losses._triton"),
    Backend("cuda", "sidfast.ops.score_losses._cuda"),
    Backend("reference", "sidfast.ops.score_losses.reference"),
)
contract.register(BACKENDS)
