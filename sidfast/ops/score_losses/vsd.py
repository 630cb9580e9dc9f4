"""Variational score distillation, the loss of the DMD family."""

from __future__ import annotations

from math import inf, isfinite

from torch import Tensor

from sidfast.base.checks import per_sample
from sidfast.base.errors import InputError
from sidfast.ops.score_losses.checks import agree, explain
from sidfast.ops.score_losses.contract import ops
from sidfast.ops.score_losses.signature import score_loss


@score_loss
def vsd_loss(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    scale: Tensor | None = None,
    *,
    floor: float = 0.0,
    eps: float = 1e-6,
    grad_scale: float = 1.0,
    backend: str = "auto",
    return_weight: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Distribution matching of each sample (DMD, arXiv 2311.18828, and DMD2, 2405.14867).

    With x = images, T = teacher_x0, F = fake_x0, n = elements of a sample::

        weight = scale / (max(mean_n |x - T|, floor) + eps),  g = weight (F - T)
        L = 1/2 sum_n g^2,  dL/dx = g

    L is 1/2 sum_n (x - stop(x - g))^2: its gradient is defined to be g, not derived from weight.
    `images` alone have a gradient; teacher and fake score get none. Precision, samples that are not
    finite, `grad_scale`, `backend`, `return_weight`, result and errors are those of `sid_loss`.

    Args:
        images, teacher_x0, fake_x0: (B, ...) of one shape and device, videos too; float32,
            bfloat16, float16 or float64 each; any strides.
        scale: (B,) or (B, 1, 1, ...) float32, or None for 1.
        floor, eps: bounds of the weight's denominator, >= 0 and not both 0.
    """
    if not (
        agree(images, teacher_x0, fake_x0)
        and 0 <= floor < inf
        and 0 <= eps < inf
        and floor + eps
        and isfinite(grad_scale)
        and grad_scale
    ):
        explain(images, grad_scale, {"teacher_x0": teacher_x0, "fake_x0": fake_x0})
        raise InputError(
            expected="floor >= 0 and eps >= 0, not both 0",
            got=f"{floor} and {eps}",
            fix="pass floor=0.0, eps=1e-6 if in doubt",
        )
    if scale is not None:
        scale = per_sample("scale", scale, "images", images)
    loss, weight = ops.vsd_loss(images, teacher_x0, fake_x0, scale, floor, eps, grad_scale, backend)
    return (loss, weight) if return_weight else loss
