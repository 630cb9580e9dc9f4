"""Losses of score distillation, one value per sample; their gradients come from the same pass."""

from __future__ import annotations

from math import inf, isfinite
from typing import Literal, overload

from torch import Tensor

from sidfast.base.backends import Backend
from sidfast.base.checks import FLOATS, check_device, check_dtype, per_sample
from sidfast.base.errors import InputError
from sidfast.ops.score_losses import contract

__all__ = ["BACKENDS", "dsm_loss", "sid_loss"]

BACKENDS = (
    Backend("native", "sidfast.ops.score_losses._native"),
    Backend("triton", "sidfast.ops.score_losses._triton"),
    Backend("cuda", "sidfast.ops.score_losses._cuda"),
    Backend("reference", "sidfast.ops.score_losses.reference"),
)
contract.register(BACKENDS)


@overload
def sid_loss(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float = ...,
    floor: float = ...,
    *,
    grad_scale: float = ...,
    backend: str = ...,
    return_bad: Literal[False] = ...,
) -> Tensor: ...
@overload
def sid_loss(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float = ...,
    floor: float = ...,
    *,
    grad_scale: float = ...,
    backend: str = ...,
    return_bad: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def sid_loss(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float = 1.2,
    floor: float = 1e-5,
    *,
    grad_scale: float = 1.0,
    backend: str = "auto",
    return_bad: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """SiD's generator loss of each sample (arXiv 2404.04057, eq. 23 with its weight).

    With x = images, T = teacher_x0, F = fake_x0, e = T - x, d = T - F, n = C H W::

        w = max(mean_n |e|, floor)                    without gradient
        L = sum_n d (e - alpha d) / w
        dL/dx = -d / w,  dL/dT = (e + (1 - 2 alpha) d) / w,  dL/dF = (2 alpha d - e) / w

    Computed in float32 whatever the storage type (float64 if an input is). Where an input needs a
    gradient, one read of the inputs makes the loss and those gradients. A second derivative is
    refused. A sample with a NaN or an infinity gives zero loss and zero gradients. Autocast changes
    nothing; torch.vmap loops over calls and refuses gradients.

    Args:
        images, teacher_x0, fake_x0: (B, ...) of one shape and device; float32, bfloat16, float16 or
            float64 each; any strides.
        alpha: weight of d d against d e; the paper's 1.0 or 1.2.
        floor: least weight w, > 0.
        grad_scale: the upstream gradient that backward will be given for every sample's loss, for
            example 100 / B for `loss.sum() * 100 / B`. Speed alone depends on it: the gradients are
            made for it, and on a CPU they are handed on untouched if it was right.
        backend: a name from `BACKENDS`, or "auto".
        return_bad: also return which samples were not finite.

    Returns:
        loss (B,) float32, summed over everything but B; with `return_bad`, (loss, bad (B,) bool).

    Raises:
        InputError: an argument of the wrong type, shape, range or device.
        BackendError: the back end asked for cannot serve the call.
    """
    shape = images.shape
    if not (
        shape == teacher_x0.shape == fake_x0.shape
        and len(shape)
        and images.device == teacher_x0.device == fake_x0.device
        and images.dtype in FLOATS
        and teacher_x0.dtype in FLOATS
        and fake_x0.dtype in FLOATS
        and 0 < floor < inf
        and isfinite(alpha)
        and isfinite(grad_scale)
        and grad_scale
    ):
        _explain(images, {"teacher_x0": teacher_x0, "fake_x0": fake_x0}, grad_scale, floor=floor)
        raise InputError(expected="a finite alpha", got=alpha, fix="the paper uses 1.0 and 1.2")
    loss, bad = contract.ops.sid_loss(
        images, teacher_x0, fake_x0, alpha, floor, grad_scale, backend
    )
    return (loss, bad) if return_bad else loss


@overload
def dsm_loss(
    images: Tensor,
    denoised: Tensor,
    sigma: Tensor,
    sigma_data: float = ...,
    *,
    grad_scale: float = ...,
    backend: str = ...,
    return_bad: Literal[False] = ...,
) -> Tensor: ...
@overload
def dsm_loss(
    images: Tensor,
    denoised: Tensor,
    sigma: Tensor,
    sigma_data: float = ...,
    *,
    grad_scale: float = ...,
    backend: str = ...,
    return_bad: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def dsm_loss(
    images: Tensor,
    denoised: Tensor,
    sigma: Tensor,
    sigma_data: float = 0.5,
    *,
    grad_scale: float = 1.0,
    backend: str = "auto",
    return_bad: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Denoising score matching of each sample with EDM's weight (arXiv 2206.00364, table 1).

    With x = images, F = denoised, n = C H W, s = sigma, s_d = sigma_data::

        L = (s^2 + s_d^2) / (s s_d)^2  sum_n (F - x)^2
        dL/dF = 2 (s^2 + s_d^2) / (s s_d)^2  (F - x)

    `denoised` alone has a gradient; `images` and `sigma` get none. Precision, non-finite samples,
    `grad_scale`, `backend`, `return_bad`, result and errors are those of `sid_loss`.

    Args:
        images, denoised: (B, ...) of one shape and device; float32, bfloat16, float16 or float64
            each; any strides.
        sigma: (B,) or (B, 1, 1, ...) float32, noise level of each sample, > 0.
        sigma_data: standard deviation of the data, > 0.
    """
    shape = images.shape
    if not (
        shape == denoised.shape
        and len(shape)
        and images.device == denoised.device
        and images.dtype in FLOATS
        and denoised.dtype in FLOATS
        and 0 < sigma_data < inf
        and isfinite(grad_scale)
        and grad_scale
    ):
        _explain(images, {"denoised": denoised}, grad_scale, sigma_data=sigma_data)
    sigma = per_sample("sigma", sigma, "images", images)
    loss, bad = contract.ops.dsm_loss(images, denoised, sigma, sigma_data, grad_scale, backend)
    return (loss, bad) if return_bad else loss


def _explain(
    images: Tensor, others: dict[str, Tensor], grad_scale: float, **positive: float
) -> None:
    """Raise the InputError of the first of the arguments that does not fit."""
    for name, other in others.items():
        if images.shape != other.shape or images.dim() == 0:
            raise InputError(
                expected=f"images and {name} of one shape (B, ...)",
                got=f"{tuple(images.shape)} and {tuple(other.shape)}",
                fix="pass the same batch to both",
            )
        check_device("images", images, name, other)
    for name, tensor in {"images": images, **others}.items():
        check_dtype(name, tensor.dtype)
    for name, value in positive.items():
        if not 0 < value < inf:
            raise InputError(expected=f"{name} > 0", got=value, fix="pass a positive finite number")
    if grad_scale == 0 or not isfinite(grad_scale):
        raise InputError(
            expected="a finite grad_scale other than 0", got=grad_scale, fix="pass 1.0 if in doubt"
        )
