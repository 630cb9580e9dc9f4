"""The score losses in C++ on a CPU, float32 inside: csrc/score_losses/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base import native
from sidfast.ops.score_losses.contract import gradient_like

_STORAGE = (torch.float32, torch.bfloat16, torch.float16)
# A new tensor costs less when it is like another one than when its type is spelt out.
_LOSS = torch.empty(0, dtype=torch.float32, device="cpu")
_BAD = torch.empty(0, dtype=torch.bool, device="cpu")
_NOWHERE = _LOSS  # its address is 0
_NO_GRADIENTS = (_NOWHERE, _NOWHERE, _NOWHERE)
_OPERANDS = {"sid_loss": 3, "sid_loss_grads": 3, "dsm_loss": 2, "dsm_loss_grad": 2}


def reasons(op: str, *args: Any) -> list[str]:
    """Why the native library cannot serve `op(*args)`; empty if it can."""
    found = native.reasons()
    operands: Sequence[Tensor] = args[: _OPERANDS[op]]
    dtype = operands[0].dtype
    for operand in operands:
        if operand.dtype is not dtype or not operand.is_cpu:
            break
    else:
        if dtype in _STORAGE:
            return found
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
    return _sid(_rows((images, teacher_x0, fake_x0)), alpha, floor, 1.0, _NO_GRADIENTS)


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
    grads = (
        gradient_like(images, need[0]),
        gradient_like(teacher_x0, need[1]),
        gradient_like(fake_x0, need[2]),
    )
    rows = _rows(operands)
    made = grads if rows is operands else tuple(map(gradient_like, rows, need))
    loss, bad = _sid(rows, alpha, floor, grad_scale, made)
    if made is not grads:
        for target, source in zip(grads, made, strict=True):
            target.copy_(source)
    return loss, bad, *grads


def _sid(
    rows: Sequence[Tensor], alpha: float, floor: float, grad_scale: float, grads: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    images, teacher, fake = rows
    of_images, of_teacher, of_fake = grads
    samples = images.shape[0]
    loss, bad = _LOSS.new_empty(samples), _BAD.new_empty(samples)
    native.cpu_library().sid_loss(
        images.data_ptr(),
        teacher.data_ptr(),
        fake.data_ptr(),
        native.storage(images.dtype),
        samples,
        images.numel() // (samples or 1),
        alpha,
        floor,
        grad_scale,
        loss.data_ptr(),
        bad.data_ptr(),
        of_images.data_ptr(),
        of_teacher.data_ptr(),
        of_fake.data_ptr(),
        torch.get_num_threads(),
    )
    return loss, bad


def dsm_loss(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float
) -> tuple[Tensor, Tensor]:
    return _dsm(_rows((images, denoised)), sigma, sigma_data, 1.0, _NOWHERE)


def dsm_loss_grad(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float, grad_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    operands = (images, denoised)
    grad = gradient_like(denoised)
    rows = _rows(operands)
    made = grad if rows is operands else gradient_like(rows[1])
    loss, bad = _dsm(rows, sigma, sigma_data, grad_scale, made)
    if made is not grad:
        grad.copy_(made)
    return loss, bad, grad


def _dsm(
    rows: Sequence[Tensor], sigma: Tensor, sigma_data: float, grad_scale: float, grad: Tensor
) -> tuple[Tensor, Tensor]:
    images, denoised = rows
    samples, sigma = images.shape[0], sigma.contiguous()
    loss, bad = _LOSS.new_empty(samples), _BAD.new_empty(samples)
    native.cpu_library().dsm_loss(
        images.data_ptr(),
        denoised.data_ptr(),
        sigma.data_ptr(),
        native.storage(images.dtype),
        samples,
        images.numel() // (samples or 1),
        sigma_data,
        grad_scale,
        loss.data_ptr(),
        bad.data_ptr(),
        grad.data_ptr(),
        torch.get_num_threads(),
    )
    return loss, bad


def _rows(operands: Sequence[Tensor]) -> Sequence[Tensor]:
    """The operands themselves if every sample of each has its elements in one order, else copies.

    Any dense order will do, since sums do not mind; the copies are contiguous.
    """
    for operand in operands:
        if not operand.is_contiguous():
            break
    else:
        return operands
    if all(operand.is_contiguous(memory_format=torch.channels_last) for operand in operands):
        return operands
    return [operand.contiguous() for operand in operands]
