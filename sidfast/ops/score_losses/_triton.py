"""The score losses in Triton, float32 inside, sums in float64 beyond a few terms.

A sample of up to 16384 elements (see `_resident` for exceptions) stays in one program's registers
between its sums and its gradients: one launch, one read. A larger one is cut into parts: a launch
for their sums, another that adds those up in their order and looks at the operands again
(`dsm_loss` only where a sample is bad). How a sample is summed depends on its size and layout
alone, so the bits depend neither on the batch nor on the gradients asked for. The kernels are in
`_triton_pair.py` and `_triton_dsm.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from sidfast.base import triton_support
from sidfast.ops.score_losses._triton_dsm import dsm_finish, dsm_sample, dsm_sums
from sidfast.ops.score_losses._triton_pair import pair_finish, pair_sample, pair_sums
from sidfast.ops.score_losses._triton_rescale import rescale_parts
from sidfast.ops.score_losses.contract import (
    BATCHES,
    gradients_like,
    hand_over,
    per_sample_outputs,
    row_shape,
)

_STORAGE = (torch.float32, torch.bfloat16, torch.float16)

# 16 warps hold e and d of 16384 elements in 64 of the 128 registers that each of their threads can
# have. Fewer elements take 16 a thread, so that two programs share a multiprocessor and one reads
# while the other writes. Samples that do not all begin on an address that suits wide loads keep an
# address and a mask for each element too: a quarter as many elements, or registers spill. Where
# noise is made for channels that are stored last, half as many elements and half as many warps,
# which leaves each thread twice the registers.
_RESIDENT = 16384
_MOST_WARPS = 16
_PART = 4096  # elements that a program looks at together in a larger sample
_MOST_PARTS = 1024  # of a sample; beyond 4 Mi elements a part is several looks
_COUNTER = 4  # elements that share a counter of their noise

Batches = Sequence[Tensor | None]


def reasons(op: str, *args: Any) -> list[str]:
    """Why Triton cannot serve `op(*args)`; empty if it can."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    found = triton_support.reasons(*tensors)
    dtypes = {batch.dtype for batch in args[BATCHES[op]] if batch is not None}
    return found + [f"does not compute in {each}" for each in dtypes if each not in _STORAGE]


def sid_loss(*args: Any) -> tuple[Tensor, ...]:
    return sid_loss_grads(*args)[:2]


def sid_loss_grads(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float,
    floor: float,
    grad_scale: float = 1.0,
    need: Sequence[bool] = (False,) * 3,
) -> tuple[Tensor, ...]:
    batches, need = (images, teacher_x0, fake_x0, None), (*need, False)
    return _pair("sid", batches, need, None, 0, None, alpha, floor, 0.0, grad_scale)[:5]


def sid_loss_raw(*args: Any) -> tuple[Tensor, ...]:
    return sid_loss_raw_grads(*args)[:2]


def sid_loss_raw_grads(
    images: Tensor,
    teacher_raw: Tensor,
    fake_raw: Tensor,
    noisy: Tensor | None,
    sigma: Tensor,
    seed: Tensor | None,
    index: Tensor | None,
    stream: int,
    c_skip: Tensor,
    c_out: Tensor,
    alpha: float,
    floor: float,
    grad_scale: float = 1.0,
    need: Sequence[bool] = (False,) * 4,
) -> tuple[Tensor, ...]:
    batches, folded = (images, teacher_raw, fake_raw, noisy), (c_skip, c_out, sigma, seed, index)
    return _pair("sid", batches, need, folded, stream, None, alpha, floor, 0.0, grad_scale)


def vsd_loss(*args: Any) -> tuple[Tensor, ...]:
    return _vsd(*args, need=False)[:2]


def vsd_loss_grad(*args: Any) -> tuple[Tensor, ...]:
    return _vsd(*args, need=True)


def _vsd(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    scale: Tensor | None,
    floor: float,
    eps: float,
    grad_scale: float = 1.0,
    *,
    need: bool,
) -> tuple[Tensor, ...]:
    batches, wanted = (images, teacher_x0, fake_x0, None), (need, False, False, False)
    return _pair("vsd", batches, wanted, None, 0, scale, 0.0, floor, eps, grad_scale)[:3]


def _pair(
    kind: str,
    batches: Batches,
    need: Sequence[bool],
    folded: Batches | None,
    stream: int,
    scale: Tensor | None,
    alpha: float,
    floor: float,
    eps: float,
    grad_scale: float,
) -> tuple[Tensor, ...]:
    """Loss, weight, and the gradients to images, teacher, fake and noisy."""
    loss, weight = per_sample_outputs(*batches)
    grads = gradients_like(batches, need)
    rows, last = _rows(batches)
    source, folded = _folded(rows[-1], folded)
    made = grads if rows is batches else gradients_like(rows, need)
    wanted = tuple(each if needed else None for each, needed in zip(made, need, strict=True))
    operands = (*rows[:3], folded, stream)
    constants = (None if scale is None else scale.contiguous(), alpha, floor, eps, grad_scale)
    batch, size = row_shape(rows[0])
    with torch.cuda.device_of(loss):
        if batch and size <= _resident(size, source, last):
            options = {"KIND": kind, **_whole(size, source, last)}
            pair_sample[(batch,)](*operands, wanted, loss, weight, *constants, size, **options)
        elif batch:
            parts, cut = _cut(size, source, last)
            options = {"KIND": kind, **cut}
            sums = loss.new_empty((batch, 2, parts), dtype=torch.float64)
            pair_sums[(batch * parts,)](*operands, sums, alpha, size, parts, **options)
            programs = batch * parts if any(need) else batch
            pair_finish[(programs,)](
                *operands, wanted, sums, loss, weight, *constants, size, parts, **options
            )
    hand_over(made, grads)
    return loss, weight, *grads


def dsm_loss(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float
) -> tuple[Tensor, ...]:
    return _dsm((images, denoised, None), sigma, None, 0, sigma_data, 1.0, need=False)[:2]


def dsm_loss_grad(
    images: Tensor, denoised: Tensor, sigma: Tensor, sigma_data: float, grad_scale: float
) -> tuple[Tensor, ...]:
    return _dsm((images, denoised, None), sigma, None, 0, sigma_data, grad_scale, need=True)


def dsm_loss_raw(*args: Any) -> tuple[Tensor, ...]:
    return _dsm_raw(*args, need=False)[:2]


def dsm_loss_raw_grad(*args: Any) -> tuple[Tensor, ...]:
    return _dsm_raw(*args, need=True)


def _dsm_raw(
    images: Tensor,
    raw: Tensor,
    noisy: Tensor | None,
    sigma: Tensor,
    seed: Tensor | None,
    index: Tensor | None,
    stream: int,
    c_skip: Tensor,
    c_out: Tensor,
    sigma_data: float,
    grad_scale: float = 1.0,
    *,
    need: bool,
) -> tuple[Tensor, ...]:
    batches, folded = (images, raw, noisy), (c_skip, c_out, sigma, seed, index)
    return _dsm(batches, sigma, folded, stream, sigma_data, grad_scale, need=need)


def _dsm(
    batches: Batches,
    sigma: Tensor,
    folded: Batches | None,
    stream: int,
    sigma_data: float,
    grad_scale: float = 1.0,
    *,
    need: bool,
) -> tuple[Tensor, ...]:
    """Loss, weight, and the gradient to the network's output."""
    loss, weight = per_sample_outputs(*batches)
    grads = gradients_like(batches[1:2], (need,))
    rows, last = _rows(batches)
    source, folded = _folded(rows[-1], folded)
    made = grads if rows is batches else gradients_like(rows[1:2], (need,))
    wanted, sigma = made[0] if need else None, sigma.contiguous()
    operands = (*rows[:2], folded, stream)
    batch, size = row_shape(rows[0])
    with torch.cuda.device_of(loss):
        if batch and size <= _resident(size, source, last):
            options = _whole(size, source, last)
            dsm_sample[(batch,)](
                *operands, wanted, sigma, loss, weight, sigma_data, grad_scale, size, **options
            )
        elif batch:
            parts, options = _cut(size, source, last)
            sums = loss.new_empty((batch, parts), dtype=torch.float64)
            dsm_sums[(batch * parts,)](
                *operands,
                wanted,
                sigma,
                sums,
                sigma_data,
                grad_scale,
                size,
                parts,
                **options,
            )
            dsm_finish[(batch * parts if need else batch,)](
                wanted, sigma, sums, loss, weight, sigma_data, size, parts, **options
            )
    hand_over(made, grads)
    return loss, weight, *grads


def rescale(upstream: Tensor, made_for: float, *grads: Tensor) -> None:
    samples, size = row_shape(grads[0])
    parts = -(-size // _PART)
    if samples and parts:
        with torch.cuda.device_of(upstream):
            rescale_parts[(samples * parts,)](
                grads,
                upstream,
                upstream.stride(0),
                made_for,
                size,
                parts,
                COUNT=len(grads),
                BLOCK=_PART,
                num_warps=8,
            )


def _folded(
    noisy: Tensor | None, folded: Batches | None
) -> tuple[str, tuple[Tensor | None, ...] | None]:
    """Where the kernels find images, and what they need for it: see `_triton_rows.py`."""
    if folded is None:
        return "denoised", None
    c_skip, c_out, *key = (None if each is None else each.contiguous() for each in folded)
    return ("noise", (c_skip, c_out, *key)) if noisy is None else ("noisy", (c_skip, c_out, noisy))


def _resident(size: int, source: str, last: int) -> int:
    """How large a sample of `size` elements may be to stay in registers."""
    if size % 16:
        return _RESIDENT // 4
    return _RESIDENT // 2 if _scattered(source, last) else _RESIDENT


def _scattered(source: str, last: int) -> bool:
    """Whether elements need a counter each for their noise, whose words take registers."""
    return source == "noise" and last > 1


def _whole(size: int, source: str, last: int) -> dict[str, Any]:
    """Constants for programs of a whole sample each."""
    most = _MOST_WARPS // 2 if _scattered(source, last) else _MOST_WARPS
    warps = min(most, triton.next_power_of_2(max(1, size // 512)))
    return _constants(size, source, last, warps)


def _cut(size: int, source: str, last: int) -> tuple[int, dict[str, Any]]:
    """How many parts a sample has, and constants for programs of a part each."""
    steps = -(-size // (_PART * _MOST_PARTS))
    options = {"STEPS": steps, "MOST_PARTS": _MOST_PARTS, **_constants(_PART, source, last, 8)}
    return -(-size // (_PART * steps)), options


def _constants(size: int, source: str, last: int, warps: int) -> dict[str, Any]:
    # Eight elements a thread are the most that one load brings.
    scattered = _scattered(source, last)
    tile = (128 if scattered else 256) * warps
    block = min(tile, max(_COUNTER, triton.next_power_of_2(size)))
    # Fused only where the source says so: equal bits with and without gradients.
    return {
        "SOURCE": source,
        "CHANNELS": last if scattered else 1,
        "BLOCK": block,
        "TILES": max(1, -(-size // block)),
        "num_warps": warps,
        "enable_fp_fusion": False,
    }


def _rows(batches: Batches) -> tuple[Batches, int]:
    """The batches themselves if every sample of each has its elements in one order, else copies,
    and the number of channels that are stored last, else 1.

    Any dense order will do, since sums do not mind; the copies are contiguous.
    """
    given = [batch for batch in batches if batch is not None]
    if all(batch.is_contiguous() for batch in given):
        return batches, 1
    if all(batch.is_contiguous(memory_format=torch.channels_last) for batch in given):
        return batches, given[0].shape[1]
    return [None if batch is None else batch.contiguous() for batch in batches], 1
