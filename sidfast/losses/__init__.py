"""The losses of score distillation by their public names, without state.

Each takes tensors of a batch and returns one float32 value per sample, summed over everything else;
`variational_score_distillation_loss` alone returns the mean that the libraries want whose function
it stands in for. The mathematics, arguments and errors stand in each function's own description;
operators and back ends are in `sidfast.ops.score_losses`.
"""

from __future__ import annotations

from sidfast.losses.fastgen import variational_score_distillation_loss
from sidfast.losses.sida import sida_discriminator_loss, sida_generator_loss
from sidfast.ops.score_losses import dsm_loss, dsm_loss_raw, sid_loss, sid_loss_raw, vsd_loss

__all__ = [
    "dsm_loss",
    "dsm_loss_raw",
    "sid_loss",
    "sid_loss_raw",
    "sida_discriminator_loss",
    "sida_generator_loss",
    "variational_score_distillation_loss",
    "vsd_loss",
]
