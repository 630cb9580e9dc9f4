"""Denoising score matching, the loss of the fake score."""

from __future__ import annotations

from math import inf, isfinite

from torch import Tensor

from sidfast.base.checks import per_sample
from sidfast.ops.score_losses.checks import agree, explain, noise_and_preconditioning
from sidfast.ops.score_losses.contract import ops
from sidfast.ops.score_losses.signature import score_loss


@score_loss
def dsm_loss(
    images: Tensor,
    denoised: Tensor,
    sigma: Tensor,
    sigma_data: float = 0.5,
    *,
    grad_scale: float = 1.0,
    backend: str = "auto",
    return_weight: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Denoising score matching of each sample with EDM's weight (arXiv 2206.00364, table 1).

    With x = images, F = denoised, n = C H W, s = sigma, s_d = sigma_data::

        weight = (s^2 + s_d^2) / (s s_d)^2
        L = weight sum_n (F - x)^2,  dL/dF = 2 weight (F - x)

    `denoised` alone has a gradient; `images` and `sigma` get none. Precision, samples that are not
    finite, `grad_scale`, `backend`, `return_weight`, result and errors are those of `sid_loss`.

    Args:
        images, denoised: (B, ...) of one shape and device; float32, bfloat16, float16 or float64
            each; any strides.
        sigma: (B,) or (B, 1, 1, ...) float32, noise level of each sample, > 0.
        sigma_data: standard deviation of the data, > 0.
    """
    if not (
        agree(images, denoised) and 0 < sigma_data < inf and isfinite(grad_scale) and grad_scale
    ):
        explain(images, grad_scale, {"denoised": denoised}, sigma_data=sigma_data)
    sigma = per_sample("sigma", sigma, "images", images)
    loss, weight = ops.dsm_loss(images, denoised, sigma, sigma_data, grad_scale, backend)
    return (loss, weight) if return_weight else loss


@score_loss
def dsm_loss_raw(
    images: Tensor,
    raw: Tensor,
    sigma: Tensor,
    c_skip: Tensor,
    c_out: Tensor,
    sigma_data: float = 0.5,
    *,
    noisy: Tensor | None = None,
    seed: int | Tensor | None = None,
    index: Tensor | None = None,
    stream: int = 0,
    grad_scale: float = 1.0,
    backend: str = "auto",
    return_weight: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`dsm_loss` of the network's raw output: preconditioning and noise in the same pass.

    With x = images, A = raw, and the noisy images x_t = noisy, or x + sigma eps from the key as in
    `sid_loss_raw`::

        L = weight sum_n (c_skip x_t + c_out A - x)^2
        dL/dA = 2 weight c_out (c_skip x_t + c_out A - x)

    `raw` alone has a gradient: the images and their noise are made without one. Arguments, result
    and errors are those of `dsm_loss` and, for noise and preconditioning, of `sid_loss_raw`.
    """
    others = {"raw": raw}
    if noisy is not None:
        others["noisy"] = noisy
    if not (
        agree(images, *others.values())
        and 0 < sigma_data < inf
        and isfinite(grad_scale)
        and grad_scale
    ):
        explain(images, grad_scale, others, sigma_data=sigma_data)
    loss, weight = ops.dsm_loss_raw(
        images,
        raw,
        noisy,
        *noise_and_preconditioning(images, noisy, sigma, seed, index, stream, c_skip, c_out),
        sigma_data,
        grad_scale,
        backend,
    )
    return (loss, weight) if return_weight else loss
