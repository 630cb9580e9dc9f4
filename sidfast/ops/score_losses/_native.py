"""The score losses in C++ on a CPU, float32 inside: csrc/score_losses/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base import native
from sidfast.ops.score_losses.contract import LOSSES, gradients_like, hand_over, row_shape

_STORAGE = (torch.float32, torch.bfloat16, torch.float16)
# A new tensor costs less when it is like another one than when its type is spelt out.
_VALUES = torch.empty(0, dtype=torch.float32, device="cpu")
_NOWHERE = _VALUES  # its address is 0
_NO_GRADIENTS = (_NOWHERE, _NOWHERE, _NOWHERE, _NOWHERE)

_ALL, _FIRST, _SECOND = slice(None), slice(0, 1), slice(1, 2)
_ONE = (True,)

# Where among an operator's arguments the batches of one dtype are.
_GROUPS = {
    "sid_loss": (slice(0, 3),),
    "dsm_loss": (slice(0, 2),),
    "vsd_loss": (slice(0, 3),),
    "sid_loss_raw": (slice(0, 4, 3), slice(1, 3)),
    "dsm_loss_raw": (slice(0, 3, 2), slice(1, 2)),
}
_GROUPS |= {loss.name_with_gradient: _GROUPS[loss.name] for loss in LOSSES}

_Rows = Sequence[Any]  # batches as the library reads them; None for noisy images that are not given


def reasons(op: str, *args: Any) -> list[str]:
    """Why the native library cannot serve `op(*args)`; empty if it can."""
    found = native.reasons()
    for group in _GROUPS[op]:
        batches = args[group]
        dtype = batches[0].dtype
        for batch in batches:
            if batch is not None and (batch.dtype is not dtype or not batch.is_cpu):
                return found + _explained(batches)
        if dtype not in _STORAGE:
            return found + _explained(batches)
    if len(_GROUPS[op]) > 1 and args[0].dtype not in (args[1].dtype, torch.float32):
        found.append(f"needs images of {args[1].dtype}, as the raw outputs, or of float32")
    return found


def _explained(batches: Sequence[Tensor | None]) -> list[str]:
    given = [batch for batch in batches if batch is not None]
    dtypes = [batch.dtype for batch in given]
    found = []
    if not all(batch.is_cpu for batch in given):
        found.append("serves CPU tensors only")
    if len(set(dtypes)) > 1:
        found.append(f"needs one dtype, got {', '.join(map(str, dtypes))}")
    if dtypes[0] not in _STORAGE:
        found.append(f"does not compute in {dtypes[0]}")
    return found


def sid_loss(
    images: Tensor, teacher_x0: Tensor, fake_x0: Tensor, alpha: float, floor: float
) -> tuple[Tensor, Tensor]:
    return _sid(_rows((images, teacher_x0, fake_x0)), _NO_GRADIENTS, alpha, floor, 1.0)


def sid_loss_grads(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float,
    floor: float,
    grad_scale: float,
    need: Sequence[bool],
) -> tuple[Tensor, ...]:
    batches = (images, teacher_x0, fake_x0)
    rows = _rows(batches)
    return _with_gradients(_sid, batches, rows, _ALL, need, alpha, floor, grad_scale)


def _sid(
    rows: _Rows, grads: Sequence[Tensor], alpha: float, floor: float, grad_scale: float
) -> tuple[Tensor, Tensor]:
    images = rows[0]
    samples = images.shape[0]
    loss, weight = _VALUES.new_empty(samples), _VALUES.new_empty(samples)
    native.cpu_library().sid_loss(
        images.data_ptr(),
        rows[1].data_ptr(),
        rows[2].data_ptr(),
        native.storage(images.dtype),
        samples,
        images.numel() // (samples or 1),
        alpha,
        floor,
        grad_scale,
        loss.data_ptr(),
        weight.data_ptr(),
        grads[0].data_ptr(),
        grads[1].data_ptr(),
        grads[2].data_ptr(),
        torch.get_num_threads(),
    )
    return loss, weight


def sid_loss_raw(*args: Any) -> tuple[Tensor, Tensor]:
    batches, folded, (alpha, floor) = args[:4], args[4:10], args[10:]
    rows = _rows(batches, keyed=batches[-1] is None)
    return _sid_raw(rows, _NO_GRADIENTS, folded, alpha, floor, 1.0)


def sid_loss_raw_grads(*args: Any) -> tuple[Tensor, ...]:
    batches, folded, (alpha, floor, grad_scale, need) = args[:4], args[4:10], args[10:]
    rows = _rows(batches, keyed=batches[-1] is None)
    return _with_gradients(_sid_raw, batches, rows, _ALL, need, folded, alpha, floor, grad_scale)


def _sid_raw(
    rows: _Rows,
    grads: Sequence[Tensor],
    folded: Sequence[Any],
    alpha: float,
    floor: float,
    grad_scale: float,
) -> tuple[Tensor, Tensor]:
    images, teacher, fake, noisy = rows
    loss, weight = _per_sample(images)
    constants, seed, stream = _folded(noisy, *folded)
    native.cpu_library().sid_loss_raw(
        images.data_ptr(),
        teacher.data_ptr(),
        fake.data_ptr(),
        [0 if each is None else each.data_ptr() for each in constants],
        native.storage(images.dtype),
        native.storage(teacher.dtype),
        *row_shape(images),
        seed,
        stream,
        alpha,
        floor,
        grad_scale,
        loss.data_ptr(),
        weight.data_ptr(),
        [grad.data_ptr() for grad in grads],
        torch.get_num_threads(),
    )
    return loss, weight


def dsm_loss(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float
) -> tuple[Tensor, Tensor]:
    return _dsm(_rows((images, denoised)), _NO_GRADIENTS, sigma, sigma_data, 1.0)


def dsm_loss_grad(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float, grad_scale: float
) -> tuple[Tensor, ...]:
    batches = (images, denoised)
    rows = _rows(batches)
    return _with_gradients(_dsm, batches, rows, _SECOND, _ONE, sigma, sigma_data, grad_scale)


def _dsm(
    rows: _Rows, grads: Sequence[Tensor], sigma: Tensor, sigma_data: float, grad_scale: float
) -> tuple[Tensor, Tensor]:
    images, denoised = rows
    sigma = sigma.contiguous()
    loss, weight = _per_sample(images)
    native.cpu_library().dsm_loss(
        images.data_ptr(),
        denoised.data_ptr(),
        sigma.data_ptr(),
        native.storage(images.dtype),
        *row_shape(images),
        sigma_data,
        grad_scale,
        loss.data_ptr(),
        weight.data_ptr(),
        grads[0].data_ptr(),
        torch.get_num_threads(),
    )
    return loss, weight


def dsm_loss_raw(*args: Any) -> tuple[Tensor, Tensor]:
    batches, folded, (sigma_data,) = args[:3], args[3:9], args[9:]
    rows = _rows(batches, keyed=batches[-1] is None)
    return _dsm_raw(rows, _NO_GRADIENTS, folded, sigma_data, 1.0)


def dsm_loss_raw_grad(*args: Any) -> tuple[Tensor, ...]:
    batches, folded, (sigma_data, grad_scale) = args[:3], args[3:9], args[9:]
    rows = _rows(batches, keyed=batches[-1] is None)
    return _with_gradients(_dsm_raw, batches, rows, _SECOND, _ONE, folded, sigma_data, grad_scale)


def _dsm_raw(
    rows: _Rows,
    grads: Sequence[Tensor],
    folded: Sequence[Any],
    sigma_data: float,
    grad_scale: float,
) -> tuple[Tensor, Tensor]:
    images, raw, noisy = rows
    loss, weight = _per_sample(images)
    constants, seed, stream = _folded(noisy, *folded)
    native.cpu_library().dsm_loss_raw(
        images.data_ptr(),
        raw.data_ptr(),
        [0 if each is None else each.data_ptr() for each in constants],
        native.storage(images.dtype),
        native.storage(raw.dtype),
        *row_shape(images),
        seed,
        stream,
        sigma_data,
        grad_scale,
        loss.data_ptr(),
        weight.data_ptr(),
        grads[0].data_ptr(),
        torch.get_num_threads(),
    )
    return loss, weight


def vsd_loss(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    scale: Tensor | None,
    floor: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    rows = _rows((images, teacher_x0, fake_x0))
    return _vsd(rows, _NO_GRADIENTS, scale, floor, eps, 1.0)


def vsd_loss_grad(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    scale: Tensor | None,
    floor: float,
    eps: float,
    grad_scale: float,
) -> tuple[Tensor, ...]:
    batches = (images, teacher_x0, fake_x0)
    rows = _rows(batches)
    return _with_gradients(_vsd, batches, rows, _FIRST, _ONE, scale, floor, eps, grad_scale)


def _vsd(
    rows: _Rows,
    grads: Sequence[Tensor],
    scale: Tensor | None,
    floor: float,
    eps: float,
    grad_scale: float,
) -> tuple[Tensor, Tensor]:
    images, teacher, fake = rows
    scale = None if scale is None else scale.contiguous()
    loss, weight = _per_sample(images)
    native.cpu_library().vsd_loss(
        images.data_ptr(),
        teacher.data_ptr(),
        fake.data_ptr(),
        0 if scale is None else scale.data_ptr(),
        native.storage(images.dtype),
        *row_shape(images),
        floor,
        eps,
        grad_scale,
        loss.data_ptr(),
        weight.data_ptr(),
        grads[0].data_ptr(),
        torch.get_num_threads(),
    )
    return loss, weight


def _with_gradients(
    run: Callable[..., tuple[Tensor, Tensor]],
    batches: Sequence[Tensor | None],
    rows: _Rows,
    differentiable: slice,
    need: Sequence[bool],
    *constants: Any,
) -> tuple[Tensor, ...]:
    """What run(rows, gradients, *constants) makes, the gradients in their batches' own strides."""
    grads = gradients_like(batches[differentiable], need)
    made = grads if rows is batches else gradients_like(rows[differentiable], need)
    loss, weight = run(rows, made, *constants)
    hand_over(made, grads)
    return loss, weight, *grads


def _per_sample(images: Tensor) -> tuple[Tensor, Tensor]:
    samples = images.shape[0]
    return _VALUES.new_empty(samples), _VALUES.new_empty(samples)


def _folded(
    noisy: Tensor | None,
    sigma: Tensor,
    seed: Tensor | None,
    index: Tensor | None,
    stream: int,
    c_skip: Tensor,
    c_out: Tensor,
) -> tuple[list[Tensor | None], int, int]:
    """Noisy images, constants of each sample and index, dense; seed and stream."""
    tensors = [noisy, *(each.contiguous() for each in (sigma, c_skip, c_out)), index]
    if seed is None or index is None:
        return tensors, 0, 0
    tensors[-1] = index.contiguous()
    return tensors, int(seed.item()), stream


def _rows(batches: _Rows, keyed: bool = False) -> _Rows:
    """The batches themselves if every sample of each has its elements in one order, else copies.

    Any dense order will do, since sums do not mind, but where noise is `keyed` to the logical
    order. The copies are contiguous.
    """
    for batch in batches:
        if batch is not None and not batch.is_contiguous():
            break
    else:
        return batches
    if not keyed and all(
        batch is None or batch.is_contiguous(memory_format=torch.channels_last) for batch in batches
    ):
        return batches
    return [batch if batch is None else batch.contiguous() for batch in batches]
