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
    operands = args[: _OPERANDS[op]]
    if any(operand.device.type != "cpu" for operand in operands):
        found.append("serves CPU tensors only")
    dtypes = {operand.dtype for operand in operands}
    if len(dtypes) > 1:
        found.append(f"needs one dtype, got {', '.join(sorted(map(str, dtypes)))}")
    found += [f"does not compute in {each}" for each in dtypes if each not in _STORAGE]
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
    grads = [gradient_like(*pair) for pair in zip(operands, need, strict=True)]
    rows = _rows(operands)
    made = _targets(rows, grads, need)
    native.cpu_library().sid_loss(
        *(row.data_ptr() for row in rows),
        native.storage(images.dtype),
        *_row_shape(images),
        alpha,
        floor,
        grad_scale,
        loss.data_ptr(),
        bad.data_ptr(),
        *(0 if each is None else each.data_ptr() for each in made),
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
    rows = _rows((images, denoised))
    (made,) = _targets(rows, [grad], [need])
    sigma = sigma.contiguous()
    native.cpu_library().dsm_loss(
        *(row.data_ptr() for row in rows),
        sigma.data_ptr(),
        native.storage(images.dtype),
        *_row_shape(images),
        sigma_data,
        grad_scale,
        loss.data_ptr(),
        bad.data_ptr(),
        0 if made is None else made.data_ptr(),
        torch.get_num_threads(),
    )
    _hand_over([made], [grad])
    return loss, bad, grad


def _row_shape(x: Tensor) -> tuple[int, int]:
    batch = x.shape[0]
    return batch, x.numel() // max(batch, 1)


def _rows(operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The operands with one element order in every sample, itself dense: sums do not mind which."""
    if operands[0].dim() == 4 and not operands[0].is_contiguous():
        last = torch.channels_last
        if all(operand.is_contiguous(memory_format=last) for operand in operands):
            return tuple(operands)
    return tuple(operand.contiguous() for operand in operands)


def _targets(
    rows: Sequence[Tensor], grads: Sequence[Tensor], need: Sequence[bool]
) -> list[Tensor | None]:
    """Where each gradient is written: itself, if its element order is the rows'."""
    order = rows[0].stride()
    return [
        None if not wanted else grad if grad.stride() == order else torch.empty_like(rows[0])
        for grad, wanted in zip(grads, need, strict=True)
    ]


def _hand_over(made: Sequence[Tensor | None], grads: Sequence[Tensor]) -> None:
    for source, grad in zip(made, grads, strict=True):
        if source is not None and source is not grad:
            grad.copy_(source)
