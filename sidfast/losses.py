"""The losses of score distillation by their public names, without state.

Each takes tensors of a batch and returns one float32 value per sample, summed over everything else.
The mathematics, arguments and errors stand in each function's own description; their operators and
back ends are in `sidfast.ops.score_losses`.
"""

from __future__ import annotations

from sidfast.ops.score_losses import dsm_loss, dsm_loss_raw, sid_loss, sid_loss_raw, vsd_loss

__all__ = ["dsm_loss", "dsm_loss_raw", "sid_loss", "sid_loss_raw", "vsd_loss"]
