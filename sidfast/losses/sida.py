"""The adversarial terms of SiDA (adversarial SiD, arXiv 2410.14919).

Its discriminator has no weights of its own: the logits of a batch are the channel mean of the last
features of the fake score's encoder. As in the authors' code, a sample's weight multiplies the mean
cross-entropy of the whole batch, not the sample's own: of micro-batches, each has its own mean.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sidfast.base.batch import spread
from sidfast.base.checks import FLOATS, check_device, check_dtype
from sidfast.base.errors import InputError
from sidfast.ops.score_losses import sid_loss


def sida_generator_loss(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    logits: Tensor,
    alpha: float = 1.0,
    floor: float = 1e-5,
    *,
    sid_weight: float = 0.5,
    gan_weight: float = 5e-5,
    grad_scale: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """SiDA's generator loss of each sample: `sid_loss` and the cross-entropy of passing for real.

    With w as in `sid_loss`, n = C H W and l = logits clamped to [-10, 10]::

        L = sid_weight L_sid + gan_weight n / w  mean_batch log(1 + exp(-l))

    The defaults are the paper's constants for `loss.sum() * 100 / B`: half of either term, the
    second scaled by 0.01 where the first is by 100. A sample with a NaN or an infinity in any of
    the four tensors gives zero loss and zero gradients and does not enter the mean. The pass that
    makes L_sid makes w, which has no gradient.

    Args:
        images, teacher_x0, fake_x0, alpha, floor, backend: those of `sid_loss`.
        logits: (B, ...) floating, the discriminator's logits of the noised images.
        sid_weight, gan_weight: of the two terms, > 0.
        grad_scale: the upstream gradient of L, as in `sid_loss`.

    Returns:
        loss (B,) float32.

    Raises:
        InputError, BackendError: those of `sid_loss`.
    """
    for name, value in (("sid_weight", sid_weight), ("gan_weight", gan_weight)):
        if not 0 < value < inf:
            raise InputError(
                expected=f"{name} > 0", got=value, fix="for SiD alone, call sidfast.losses.sid_loss"
            )
    _check_logits("logits", logits, "images", images)
    loss, weight = sid_loss(
        images,
        teacher_x0,
        fake_x0,
        alpha,
        floor,
        grad_scale=sid_weight * grad_scale,
        backend=backend,
        return_weight=True,
    )
    good, weight, (logits,) = _finite(weight, logits)
    surprise = _mean(softplus(-logits.clamp(-10, 10)), good)
    adversarial = gan_weight * images.shape[1:].numel() * weight * surprise
    return torch.where(good, sid_weight * loss, 0) + adversarial


def sida_discriminator_loss(fake_logits: Tensor, real_logits: Tensor, weight: Tensor) -> Tensor:
    """SiDA's discriminator loss of each sample, which the fake score's update adds to `dsm_loss`.

    With f = fake_logits and r = real_logits::

        L = weight / 2  mean_batch (log(1 + exp(f)) + log(1 + exp(-r)))

    Generated and real images are noised alike: one sigma, one noise. A sample with a NaN or an
    infinity gives zero loss and zero gradients and does not enter the mean.

    Args:
        fake_logits, real_logits: (B, ...) floating, the logits of noised generated and real images.
        weight: (B,), as `dsm_loss(..., return_weight=True)` returns it; without gradient.

    Returns:
        loss (B,) of the dtype of `weight`.

    Raises:
        InputError: an argument of the wrong type, shape or device.
    """
    if weight.dim() != 1 or weight.dtype not in (torch.float32, torch.float64):
        raise InputError(
            expected="weight (B,) float32",
            got=f"{tuple(weight.shape)} {weight.dtype}",
            fix="pass the weight that dsm_loss(..., return_weight=True) returns",
        )
    _check_logits("fake_logits", fake_logits, "weight", weight)
    _check_logits("real_logits", real_logits, "weight", weight)
    good, weight, (fake, real) = _finite(weight, fake_logits, real_logits)
    return weight / 2 * (_mean(softplus(fake), good) + _mean(softplus(-real), good))


def _check_logits(name: str, logits: Tensor, batch_name: str, batch: Tensor) -> None:
    if logits.shape[:1] != batch.shape[:1] or logits.dim() == 0:
        raise InputError(
            expected=f"{batch_name} and {name} of one batch size",
            got=f"{tuple(batch.shape)} and {tuple(logits.shape)}",
            fix="pass logits (B, ...) of the same batch",
        )
    check_dtype(name, logits.dtype, FLOATS)
    check_device(batch_name, batch, name, logits)


def _finite(weight: Tensor, *logits: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Which samples are finite (B,), and weight and logits with zeros for those that are not."""
    good = weight.detach().isfinite()
    for each in logits:
        good = good & each.unsqueeze(-1).flatten(1).isfinite().all(1)
    kept = [torch.where(spread(good, each), each.to(weight.dtype), 0) for each in logits]
    return good, torch.where(good, weight.detach(), 0), kept


def _mean(surprise: Tensor, good: Tensor) -> Tensor:
    """Mean over the good samples' elements."""
    per_sample = surprise.unsqueeze(-1).flatten(1).mean(1)
    return torch.where(good, per_sample, 0).sum() / good.sum().clamp(min=1)
