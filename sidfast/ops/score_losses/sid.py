"""Score identity Distillation's loss of the generator."""

from __future__ import annotations

from math import inf, isfinite

from torch import Tensor

from sidfast.base.errors import InputError
from sidfast.ops.score_losses.checks import agree, explain, noise_and_preconditioning
from sidfast.ops.score_losses.contract import ops
from sidfast.ops.score_losses.signature import score_loss


@score_loss
def sid_loss(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float = 1.2,
    floor: float = 1e-5,
    *,
    grad_scale: float = 1.0,
    backend: str = "auto",
    return_weight: bool = False,
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
        floor: least w, > 0.
        grad_scale: the upstream gradient that backward will be given for every sample's loss, for
            example 100 / B for `loss.sum() * 100 / B`. Speed alone depends on it: the gradients are
            made for it, and handed on untouched if it was right (on a GPU one kernel compares,
            without a synchronisation).
        backend: a name from `BACKENDS`, or "auto".
        return_weight: also return each sample's weight, 1 / w here.

    Returns:
        loss (B,) float32, summed over everything but B; with `return_weight`, (loss, weight), both
        (B,). A weight is NaN where the sample was not finite, and has no gradient.

    Raises:
        InputError: an argument of the wrong type, shape, range or device.
        BackendError: the back end asked for cannot serve the call.
    """
    if not (
        agree(images, teacher_x0, fake_x0)
        and 0 < floor < inf
        and isfinite(alpha)
        and isfinite(grad_scale)
        and grad_scale
    ):
        others = {"teacher_x0": teacher_x0, "fake_x0": fake_x0}
        explain(images, grad_scale, others, floor=floor)
        raise _alpha(alpha)
    loss, weight = ops.sid_loss(images, teacher_x0, fake_x0, alpha, floor, grad_scale, backend)
    return (loss, weight) if return_weight else loss


@score_loss
def sid_loss_raw(
    images: Tensor,
    teacher_raw: Tensor,
    fake_raw: Tensor,
    sigma: Tensor,
    c_skip: Tensor,
    c_out: Tensor,
    alpha: float = 1.2,
    floor: float = 1e-5,
    *,
    noisy: Tensor | None = None,
    seed: int | Tensor | None = None,
    index: Tensor | None = None,
    stream: int = 0,
    grad_scale: float = 1.0,
    backend: str = "auto",
    return_weight: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`sid_loss` of the networks' raw outputs: preconditioning and noise in the same pass.

    With x = images, A = teacher_raw, B = fake_raw, and noisy images x_t, either `noisy` or, where a
    key is given instead, x + sigma eps as `add_noise` makes them from that key in float32::

        T = c_skip x_t + c_out A,  F = c_skip x_t + c_out B
        d = T - F = c_out (A - B),  e = T - x

    then w and L as in `sid_loss`. d is computed so, without x_t: right after the start T and F are
    nearly equal, and their difference would be mostly the rounding of c_skip x_t. Gradients::

        dL/dA = c_out (e + (1 - 2 alpha) d) / w,  dL/dB = c_out (2 alpha d - e) / w
        dL/dx_t = c_skip d / w,  dL/dx = -d / w, plus dL/dx_t where x_t was made from x

    A key spares memory, and on a CPU costs time: there making noise takes longer than reading it.

    Precision, samples that are not finite, `alpha`, `floor`, `grad_scale`, `backend`,
    `return_weight`, result and errors are those of `sid_loss`.

    Args:
        images, noisy: (B, ...) of one shape; float32, bfloat16, float16 or float64; any strides.
        teacher_raw, fake_raw: like `images`, of dtypes of their own.
        sigma: (B,) or (B, 1, 1, ...) float32, the noise level of x_t; without gradient.
        c_skip, c_out: like `sigma`, the preconditioning (EDM, arXiv 2206.00364, table 1).
        noisy: the noisy images x_t; else both of
        seed, index: as in `add_noise`, and with them `stream`.
    """
    others = {"teacher_raw": teacher_raw, "fake_raw": fake_raw}
    if noisy is not None:
        others["noisy"] = noisy
    if not (
        agree(images, *others.values())
        and 0 < floor < inf
        and isfinite(alpha)
        and isfinite(grad_scale)
        and grad_scale
    ):
        explain(images, grad_scale, others, floor=floor)
        raise _alpha(alpha)
    loss, weight = ops.sid_loss_raw(
        images,
        teacher_raw,
        fake_raw,
        noisy,
        *noise_and_preconditioning(images, noisy, sigma, seed, index, stream, c_skip, c_out),
        alpha,
        floor,
        grad_scale,
        backend,
    )
    return (loss, weight) if return_weight else loss


def _alpha(alpha: float) -> InputError:
    return InputError(expected="a finite alpha", got=alpha, fix="the paper uses 1.0 and 1.2")
