"""The score losses in CUDA, float32 inside: csrc/score_losses/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base import cuda
from sidfast.ops.score_losses.contract import gradient_like, per_sample_outputs

_STORAGE = (torch.float32, torch.bfloat16, torch.float16)
_OPERANDS = {"sid_loss": 3, "sid_loss_grads": 3, "dsm_loss": 2, "dsm_loss_grad": 2}
_ALIGNMENT = 16  # bytes


def reasons(op: str, *args: Any) -> list[str]:
    """Why the CUDA library cannot serve `op(*args)`; empty if it can."""
    operands: Sequence[Tensor] = args[: _OPERANDS[op]]
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    found = cuda.reasons(*tensors)
    dtype = operands[0].dtype
    if any(operand.dtype != dtype for operand in operands):
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
    grads = [gradient_like(each, wanted) for each, wanted in zip(operands, need, strict=True)]
    rows, same_order = _rows(operands)
    made = grads if same_order else [_in_rows_order(grad) for grad in grads]
    workspace = _workspace(images)
    cuda.library().sid_loss(
        *(row.data_ptr() for row in rows),
        cuda.storage(images.dtype),
        *_row_shape(images),
        alpha,
        floor,
        grad_scale,
        loss.data_ptr(),
        bad.data_ptr(),
        *(each.data_ptr() if wanted else 0 for each, wanted in zip(made, need, strict=True)),
        workspace.data_ptr(),
        *cuda.where(images),
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
    workspace = _workspace(images)
    cuda.library().dsm_loss(
        *(row.data_ptr() for row in rows),
        sigma.data_ptr(),
        cuda.storage(images.dtype),
        *_row_shape(images),
        sigma_data,
        grad_scale,
        loss.data_ptr(),
        bad.data_ptr(),
        made.data_ptr() if need else 0,
        workspace.data_ptr(),
        *cuda.where(images),
    )
    _hand_over((made,), (grad,))
    return loss, bad, grad


def _row_shape(x: Tensor) -> tuple[int, int]:
    batch = x.shape[0]
    return batch, x.numel() // max(batch, 1)


def _workspace(x: Tensor) -> Tensor:
    """Where samples that are too large for one read leave their partial sums."""
    size = cuda.library().workspace(cuda.storage(x.dtype), *_row_shape(x), x.get_device())
    return x.new_empty(size, dtype=torch.float64)


def _rows(operands: Sequence[Tensor]) -> tuple[list[Tensor], bool]:
    """The operands aligned and with one element order in every sample, and whether it is theirs.

    Any dense order will do, since sums do not mind; operands of several become contiguous copies.
    """
    for order in (torch.contiguous_format, torch.channels_last):
        if all(operand.is_contiguous(memory_format=order) for operand in operands):
            return [_aligned(operand) for operand in operands], True
    return [_aligned(operand.contiguous()) for operand in operands], False


def _aligned(x: Tensor) -> Tensor:
    """`x`, or a copy of a view that begins between the 16-byte accesses of the kernels."""
    return x if x.data_ptr() % _ALIGNMENT == 0 else x.clone()


def _in_rows_order(grad: Tensor) -> Tensor:
    """Where a gradient with strides of its own is first written."""
    return torch.empty_like(grad, memory_format=torch.contiguous_format)


def _hand_over(made: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
    for source, grad in zip(made, grads, strict=True):
        if source is not grad:
            grad.copy_(source)
