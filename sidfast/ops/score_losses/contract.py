"""Schemas, output shapes and gradients of the score losses.

A back end is a module with `reasons(op, *args) -> list[str]` and these functions, whose positional
arguments are those of the opaque operators, but for the last, `backend`:

    sid_loss(images, teacher_x0, fake_x0, alpha, floor) -> (loss, bad)
    sid_loss_grads(images, teacher_x0, fake_x0, alpha, floor, grad_scale, need)
        -> (loss, bad, grad_images, grad_teacher, grad_fake)
    dsm_loss(images, denoised, sigma, sigma_data) -> (loss, bad)
    dsm_loss_grad(images, denoised, sigma, sigma_data, grad_scale) -> (loss, bad, grad_denoised)

Tensors are (B, ...) of one shape with any strides, each of its own floating dtype; `sigma` is
(B,) float32. Outputs are made by `per_sample_outputs` and `gradient_like`. `need` is three
bools; a gradient that is not needed has size 0. Gradients are those of the loss times `grad_scale`.
A sample is bad if its loss or its weight is not finite: then its loss and gradients are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sidfast.base.backends import Backend
from sidfast.base.batch import spread
from sidfast.base.contract import define_differentiable, define_opaque, unobserved
from sidfast.base.errors import InputError

ops = SimpleNamespace()  # the room's operators by name, once registered


def loss_dtype(*operands: Tensor) -> torch.dtype:
    """float32, or float64 as soon as one operand is."""
    for operand in operands:
        if operand.dtype == torch.float64:
            return torch.float64
    return torch.float32


def per_sample_outputs(*operands: Tensor) -> tuple[Tensor, Tensor]:
    """Empty `loss` and `bad`, (B,) each."""
    first, dtype = operands[0], loss_dtype(*operands)
    batch = first.shape[0]
    loss = first.new_empty(batch) if first.dtype is dtype else first.new_empty(batch, dtype=dtype)
    return loss, first.new_empty(batch, dtype=torch.bool)


def gradient_like(operand: Tensor, need: bool = True) -> Tensor:
    """An empty gradient: a dense operand hands on its own strides; of size 0 if not needed."""
    return torch.empty_like(operand) if need else operand.new_empty(0)


def _sid_fake(
    images: Tensor, teacher_x0: Tensor, fake_x0: Tensor, alpha: float, floor: float, backend: str
) -> tuple[Tensor, Tensor]:
    return per_sample_outputs(images, teacher_x0, fake_x0)


def _sid_grads_fake(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float,
    floor: float,
    grad_scale: float,
    need: Sequence[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    operands = (images, teacher_x0, fake_x0)
    return *per_sample_outputs(*operands), *map(gradient_like, operands, need)


def _dsm_fake(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float, backend: str
) -> tuple[Tensor, Tensor]:
    return per_sample_outputs(images, denoised)


def _dsm_grad_fake(
    images: Tensor,
    denoised: Tensor,
    sigma: Tensor,
    sigma_data: float,
    grad_scale: float,
    backend: str,
) -> tuple[Tensor, ...]:
    return *per_sample_outputs(images, denoised), gradient_like(denoised)


class _SidLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        teacher_x0: Tensor,
        fake_x0: Tensor,
        constants: tuple[float, float, float, str],
    ) -> tuple[Tensor, Tensor]:
        alpha, floor, grad_scale, backend = constants
        ctx.need = need = ctx.needs_input_grad[:3]
        loss, bad, *grads = ops._sid_loss_grads(
            images, teacher_x0, fake_x0, alpha, floor, grad_scale, need, backend
        )
        _save(ctx, grads, grad_scale)
        return loss, bad

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        return *_rescaled(ctx, upstream), None


class _DsmLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        denoised: Tensor,
        sigma: Tensor,
        constants: tuple[float, float, str],
    ) -> tuple[Tensor, Tensor]:
        sigma_data, grad_scale, backend = constants
        ctx.need = (True,)
        loss, bad, grad = ops._dsm_loss_grad(
            images, denoised, sigma, sigma_data, grad_scale, backend
        )
        _save(ctx, (grad,), grad_scale)
        return loss, bad

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        return None, *_rescaled(ctx, upstream), None, None


def _save(ctx: Any, grads: Sequence[Tensor], grad_scale: float) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*grads)
    ctx.grad_scale = grad_scale


def _rescaled(ctx: Any, upstream: Tensor | None) -> Sequence[Tensor | None]:
    """The needed gradients among the saved ones, for `upstream` (B,) instead of `grad_scale`."""
    if torch.is_grad_enabled():
        raise InputError(
            expected="a first derivative of a score loss, whose gradients the forward pass made",
            got="backward with create_graph=True",
            fix="leave create_graph out, or differentiate sidfast.ops.score_losses.reference",
        )
    need: Sequence[bool] = ctx.need
    if upstream is None:
        return [None] * len(need)
    grads = ctx.saved_tensors
    if _is_all(upstream, ctx.grad_scale):
        if all(need):
            return grads
        return [grad if wanted else None for grad, wanted in zip(grads, need, strict=True)]
    factor = upstream / ctx.grad_scale
    return [
        (grad * spread(factor, grad)).to(grad.dtype) if wanted else None
        for grad, wanted in zip(grads, need, strict=True)
    ]


def _is_all(x: Tensor, value: float) -> bool:
    """Whether x (B,) holds `value` only, where to look neither waits nor splits a traced graph."""
    return x.is_cpu and unobserved((x,)) and torch.equal(x, _filled(len(x), value, x.dtype))


@lru_cache(maxsize=32)
def _filled(size: int, value: float, dtype: torch.dtype) -> Tensor:
    return torch.full((size,), value, dtype=dtype, device="cpu")


def _sid_loss(
    images: Tensor, teacher_x0: Tensor, fake_x0: Tensor, *constants: Any
) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled() and (
        images.requires_grad or teacher_x0.requires_grad or fake_x0.requires_grad
    ):
        return _SidLoss.apply(images, teacher_x0, fake_x0, constants)
    alpha, floor, _, backend = constants
    return ops._sid_loss(images, teacher_x0, fake_x0, alpha, floor, backend)


def _dsm_loss(
    images: Tensor, denoised: Tensor, sigma: Tensor, *constants: Any
) -> tuple[Tensor, Tensor]:
    if denoised.requires_grad and torch.is_grad_enabled():
        return _DsmLoss.apply(images, denoised, sigma, constants)
    sigma_data, _, backend = constants
    return ops._dsm_loss(images, denoised, sigma, sigma_data, backend)


def register(backends: Sequence[Backend]) -> None:
    """Define the room's operators, served by `backends`."""
    operands = "Tensor images, Tensor teacher_x0, Tensor fake_x0, float alpha, float floor"
    values = "Tensor loss, Tensor bad"
    ops._sid_loss = define_opaque(
        f"_sid_loss({operands}, str backend) -> ({values})", backends=backends, fake=_sid_fake
    )
    ops._sid_loss_grads = define_opaque(
        f"_sid_loss_grads({operands}, float grad_scale, bool[] need, str backend)"
        f" -> ({values}, Tensor grad_images, Tensor grad_teacher, Tensor grad_fake)",
        backends=backends,
        fake=_sid_grads_fake,
    )
    ops.sid_loss = define_differentiable(
        f"sid_loss({operands}, float grad_scale, str backend) -> ({values})", _sid_loss
    )
    operands = "Tensor images, Tensor denoised, Tensor sigma, float sigma_data"
    ops._dsm_loss = define_opaque(
        f"_dsm_loss({operands}, str backend) -> ({values})", backends=backends, fake=_dsm_fake
    )
    ops._dsm_loss_grad = define_opaque(
        f"_dsm_loss_grad({operands}, float grad_scale, str backend)"
        f" -> ({values}, Tensor grad_denoised)",
        backends=backends,
        fake=_dsm_grad_fake,
    )
    ops.dsm_loss = define_differentiable(
        f"dsm_loss({operands}, float grad_scale, str backend) -> ({values})", _dsm_loss
    )


def plain_calls(device: str) -> dict[str, tuple[Any, ...]]:
    """Arguments of an ordinary float32 call of each operator, to ask back ends for `reasons`."""
    x = torch.empty(2, 3, 8, 8, device=device)
    sigma = torch.empty(2, device=device)
    return {
        "sid_loss": (x, x, x, 1.2, 1e-5),
        "sid_loss_grads": (x, x, x, 1.2, 1e-5, 1.0, (True, True, True)),
        "dsm_loss": (x, x, sigma, 0.5),
        "dsm_loss_grad": (x, x, sigma, 0.5, 1.0),
    }
