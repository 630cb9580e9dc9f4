"""`vsd_loss` with the signature and the reduction of NVIDIA's FastGen and ModelOpt."""

from __future__ import annotations

import torch
from torch import Tensor

from sidfast.ops.score_losses import vsd_loss


def variational_score_distillation_loss(
    gen_data: Tensor,
    teacher_x0: Tensor,
    fake_score_x0: Tensor,
    additional_scale: Tensor | None = None,
) -> Tensor:
    """What FastGen's function of this name and ModelOpt's `vsd_loss` compute, in one pass.

    With N elements in all, x = gen_data, T = teacher_x0, F = fake_score_x0::

        weight = additional_scale / (mean_n |x - T| + 1e-6),  g = weight (F - T)
        L = 1/(2 N) sum g^2,  dL/dx = g / N

    Those libraries round to the dtype of `gen_data` in between, and get g as x - (x - g); here it
    is float32 throughout, and only the gradient is rounded. A sample that is not finite adds
    nothing, where theirs makes the whole loss NaN.

    Args:
        gen_data: (B, ...), the generator's images or videos; alone has a gradient.
        teacher_x0, fake_score_x0: like `gen_data`, any floating dtype each.
        additional_scale: (B,) or (B, 1, 1, ...), a factor of each sample's weight.

    Returns:
        a scalar, float32 (float64 if an input is).

    Raises:
        InputError: an argument of the wrong type, shape or device.
    """
    scale = None if additional_scale is None else additional_scale.detach().float()
    mean = 1 / max(gen_data.numel(), 1)
    # Half precision cannot hold g / N without the loss scale that the upstream gradient brings, and
    # compiled code, which scales by that gradient anyhow, would be compiled again for each N.
    early = gen_data.dtype != torch.float16 and not torch.compiler.is_compiling()
    grad_scale = mean if early else 1.0
    loss = vsd_loss(gen_data, teacher_x0, fake_score_x0, scale, eps=1e-6, grad_scale=grad_scale)
    return loss.sum() * mean
