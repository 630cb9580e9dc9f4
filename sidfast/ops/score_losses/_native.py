"""The score losses in C++ on a CPU, float32 inside: csrc/score_losses/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base import native
from sidfast.ops.score_losses.contract import gradient_like, per_sample_outputs

_STORAGE = (torch.float32, torch.bfloat16, torch.float16)
_OPERANDS = {"sid_loss": 3, "sid_loss_grads": 3, "dsm_loss": 2, "dsm_loss_grad": 2}


def reasons(op: str, *args: Any) -> list[str]:
    """Why the native library cannot serve `op(*args)`; empty if it can."""
    found = native.reasons()
    operands: Sequence[Tensor] = args[: _OPERANDS[op]]
    dtype = operands[0].dtype
    if not all(operand.is_cpu for operand in operands):
        found.append("serves CPU tensors only")
    if not all(operand.dtype is dtype for operand in operands):
        found.append(f"needs one dtype, got {', '.join(str(each.dtype) for each in operands)}")
    if dtype not in _STORAGE:
        found.append(f"does not compute in {dtype}")
    return found


def sid_loss(
    images: Tensor, teacher_x0: Tensor, fake_x0: Tensor, alpha: float, floor: float
) -> tuple[Tensor, Tensor]:
    need = (False, False, False)
    return sid_loss_grads(images, teacher_x0, fake_x0, alpha, floor, 1.0, need)[:2]


def sid_loss_grads(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float,
    floor: float,
    grad_scale: float,
    need: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    operands = (images, teacher_x0, fake_x0)
    loss, bad = per_sample_outputs(*operands)
    grads = tuple(map(gradient_like, operands, need))
    rows, same_order = _rows(operands)
    made = grads if same_order else tuple(map(_in_rows_order, grads))
    native.cpu_library().sid_loss(
        *map(Tensor.data_ptr, rows),
        native.storage(images.dtype),
        *_row_shape(images),
        alpha,
        floor,
        grad_scale,
        loss.data_ptr(),
        bad.data_ptr(),
        *[each.data_ptr() if wanted else 0 for each, wanted in zip(made, need, strict=True)],
        torch.get_num_threads(),
    )
    _hand_over(made, grads)
    return loss, bad, grads[0], grads[1], grads[2]


def dsm_loss(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float
) -> tuple[Tensor, Tensor]:
    return _dsm(images, denoised, sigma, sigma_data, 1.0, need=False)[:2]


def dsm_loss_grad(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float, grad_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _dsm(images, denoised, sigma, sigma_data, grad_scale, need=True)


def _dsm(
    images: Tensor,
    denoised: Tensor,
    sigma: Tensor,
    sigma_data: float,
    grad_scale: float,
    *,
    need: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    loss, bad = per_sample_outputs(images, denoised)
    grad = gradient_like(denoised, need)
    rows, same_order = _rows((images, denoised))
    made = grad if same_order else _in_rows_order(grad)
    sigma = sigma.contiguous()
    native.cpu_library().dsm_loss(
        *map(Tensor.data_ptr, rows),
        sigma.data_ptr(),
        native.storage(images.dtype),
        *_row_shape(images),
        sigma_data,
        grad_scale,
        loss.data_ptr(),
        bad.data_ptr(),
        made.data_ptr() if need else 0,
        torch.get_num_threads(),
    )
    _hand_over((made,), (grad,))
    return loss, bad, grad


def _row_shape(x: Tensor) -> tuple[int, int]:
    batch = x.shape[0]
    return batch, x.numel() // max(batch, 1)


def _rows(operands: Sequence[Tensor]) -> tuple[Sequence[Tensor], bool]:
    """The operands with one element order in every sample, and whether they came with it.

    Any dense order will do, since sums do not mind; operands of several become contiguous copies.
    """
    for order in (torch.contiguous_format, torch.channels_last):
        if all(operand.is_contiguous(memory_format=order) for operand in operands):
            return operands, True
    return [operand.contiguous() for operand in operands], False


def _in_rows_order(grad: Tensor) -> Tensor:
    """Where a gradient with strides of its own is first written."""
    return torch.empty_like(grad, memory_format=torch.contiguous_format)


def _hand_over(made: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
    for source, grad in zip(made, grads, strict=True):
        if source is not grad:
            grad.copy_(source)
