"""The score losses in Triton, float32 inside, sums in float64 beyond a few terms.

A sample of up to 16384 elements, or 8192 if they are no multiple of 16, stays in one program's
registers between its sums and its gradients: one launch, one read. A larger one is cut into parts:
a launch for their sums, another that adds those up in their order and looks at the operands again
(`dsm_loss` only where a sample is bad). How a sample is summed depends on its size alone, so the
bits depend neither on the batch nor on the gradients asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sidfast.base import triton_support
from sidfast.ops.score_losses.contract import gradient_like, per_sample_outputs

_STORAGE = (torch.float32, torch.bfloat16, torch.float16)
_OPERANDS = {"sid_loss": 3, "sid_loss_grads": 3, "dsm_loss": 2, "dsm_loss_grad": 2}

# 16 warps hold e and d of 16384 elements in 64 of the 128 registers that each of their threads can
# have. Fewer elements take 16 a thread, so that two programs share a multiprocessor and one reads
# while the other writes. Samples that do not all begin on an address that suits wide loads keep an
# address and a mask for each element too: half as many elements, or registers spill.
_RESIDENT = 16384
_MOST_WARPS = 16
_PART = 4096  # elements that a program looks at together in a larger sample
_MOST_PARTS = tl.constexpr(1024)  # of a sample; beyond 4 Mi elements a part is several looks


def reasons(op: str, *args: Any) -> list[str]:
    """Why Triton cannot serve `op(*args)`; empty if it can."""
    operands: Sequence[Tensor] = args[: _OPERANDS[op]]
    found = triton_support.reasons(*operands)
    dtypes = {operand.dtype for operand in operands}
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
    grads = tuple(map(gradient_like, operands, need))
    rows = _rows(operands)
    made = grads if rows is operands else tuple(map(gradient_like, rows, need))
    wanted = [each if needed else None for each, needed in zip(made, need, strict=True)]
    batch, size = _row_shape(images)
    with torch.cuda.device_of(images):
        if batch and size <= _resident(size):
            _sid_sample[(batch,)](
                *rows, *wanted, loss, bad, alpha, floor, grad_scale, size, **_whole(size)
            )
        elif batch:
            parts, options = _cut(size)
            sums = loss.new_empty((batch, 2, parts), dtype=torch.float64)
            _sid_sums[(batch * parts,)](*rows, sums, alpha, size, parts, **options)
            programs = batch * parts if any(need) else batch
            _sid_finish[(programs,)](
                *rows, *wanted, sums, loss, bad, alpha, floor, grad_scale, size, parts, **options
            )
    if made is not grads:
        for target, source in zip(grads, made, strict=True):
            target.copy_(source)
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
    operands = (images, denoised)
    rows = _rows(operands)
    made = grad if rows is operands else gradient_like(rows[1], need)
    wanted, sigma = made if need else None, sigma.contiguous()
    batch, size = _row_shape(images)
    with torch.cuda.device_of(images):
        if batch and size <= _resident(size):
            _dsm_sample[(batch,)](
                *rows, wanted, sigma, loss, bad, sigma_data, grad_scale, size, **_whole(size)
            )
        elif batch:
            parts, options = _cut(size)
            sums = loss.new_empty((batch, parts), dtype=torch.float64)
            _dsm_sums[(batch * parts,)](
                *rows, wanted, sigma, sums, sigma_data, grad_scale, size, parts, **options
            )
            _dsm_finish[(batch * parts if need else batch,)](
                wanted, sigma, sums, loss, bad, sigma_data, size, parts, **options
            )
    if made is not grad:
        grad.copy_(made)
    return loss, bad, grad


def _resident(size: int) -> int:
    """How large a sample of `size` elements may be to stay in registers."""
    return _RESIDENT if size % 16 == 0 else _RESIDENT // 2


def _whole(size: int) -> dict[str, Any]:
    """Constants for programs of a whole sample each."""
    block = triton.next_power_of_2(max(size, 1))
    return _constants(block, min(_MOST_WARPS, max(1, block // 512)))


def _cut(size: int) -> tuple[int, dict[str, Any]]:
    """How many parts a sample has, and constants for programs of a part each."""
    steps = -(-size // (_PART * _MOST_PARTS.value))
    return -(-size // (_PART * steps)), {"STEPS": steps, **_constants(_PART, 8)}


def _constants(block: int, warps: int) -> dict[str, Any]:
    # Eight lanes a thread: the most that one load brings, so that lanes never change threads.
    lanes = min(block, 256 * warps)
    # Fused only where the source says so: equal bits with and without gradients.
    return {"BLOCK": block, "LANES": lanes, "num_warps": warps, "enable_fp_fusion": False}


def _row_shape(x: Tensor) -> tuple[int, int]:
    return x.shape[0], math.prod(x.shape[1:])


def _rows(operands: Sequence[Tensor]) -> Sequence[Tensor]:
    """The operands themselves if every sample of each has its elements in one order, else copies.

    Any dense order will do, since sums do not mind; the copies are contiguous.
    """
    for order in (torch.contiguous_format, torch.channels_last):
        if all(operand.is_contiguous(memory_format=order) for operand in operands):
            return operands
    return [operand.contiguous() for operand in operands]


@triton.jit
def _sid_sample(
    images: tl.tensor,
    teacher: tl.tensor,
    fake: tl.tensor,
    grad_images: tl.tensor,
    grad_teacher: tl.tensor,
    grad_fake: tl.tensor,
    loss: tl.tensor,
    bad: tl.tensor,
    alpha: tl.float64,
    floor: tl.float64,
    grad_scale: tl.float64,
    size: tl.int64,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    sample = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    at, inside = sample * size + i, i < size
    error, difference = _error_and_difference(images, teacher, fake, at, inside)
    error_sum, score = _sid_terms(error, difference, alpha, BLOCK, LANES)
    weight, value, good = _sid_conclude(error_sum, score, floor, size)
    tl.store(loss + sample, tl.where(good, value, 0.0))
    tl.store(bad + sample, ~good)
    factor = (grad_scale / weight).to(tl.float32)
    _sid_gradients(
        grad_images, grad_teacher, grad_fake, at, inside, error, difference, alpha, factor, good
    )


@triton.jit
def _sid_sums(
    images: tl.tensor,
    teacher: tl.tensor,
    fake: tl.tensor,
    sums: tl.tensor,
    alpha: tl.float64,
    size: tl.int64,
    parts: tl.int32,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    sample, part = _sample_and_part(tl.program_id(0), parts)
    error_sum = tl.zeros((), tl.float64)
    score = tl.zeros((), tl.float64)
    for step in range(STEPS):
        i = (part * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        at, inside = sample * size + i, i < size
        error, difference = _error_and_difference(images, teacher, fake, at, inside)
        step_error, step_score = _sid_terms(error, difference, alpha, BLOCK, LANES)
        error_sum += step_error
        score += step_score
    tl.store(sums + 2 * sample * parts + part, error_sum)
    tl.store(sums + (2 * sample + 1) * parts + part, score)


@triton.jit
def _sid_finish(
    images: tl.tensor,
    teacher: tl.tensor,
    fake: tl.tensor,
    grad_images: tl.tensor,
    grad_teacher: tl.tensor,
    grad_fake: tl.tensor,
    sums: tl.tensor,
    loss: tl.tensor,
    bad: tl.tensor,
    alpha: tl.float64,
    floor: tl.float64,
    grad_scale: tl.float64,
    size: tl.int64,
    parts: tl.int32,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    # Backwards, since what was read last is still in the second-level cache.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    gradients: tl.constexpr = (
        grad_images is not None or grad_teacher is not None or grad_fake is not None
    )
    sample, part = _sample_and_part(program, parts if gradients else 1)
    error_sum = _sum_of_parts(sums + 2 * sample * parts, parts)
    score = _sum_of_parts(sums + (2 * sample + 1) * parts, parts)
    weight, value, good = _sid_conclude(error_sum, score, floor, size)
    if part == 0:
        tl.store(loss + sample, tl.where(good, value, 0.0))
        tl.store(bad + sample, ~good)
    if gradients:
        factor = (grad_scale / weight).to(tl.float32)
        for step in range(STEPS):
            i = (part * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
            at, inside = sample * size + i, i < size
            error, difference = _error_and_difference(images, teacher, fake, at, inside)
            _sid_gradients(
                grad_images,
                grad_teacher,
                grad_fake,
                at,
                inside,
                error,
                difference,
                alpha,
                factor,
                good,
            )


@triton.jit
def _dsm_sample(
    images: tl.tensor,
    denoised: tl.tensor,
    grad: tl.tensor,
    sigma: tl.tensor,
    loss: tl.tensor,
    bad: tl.tensor,
    sigma_data: tl.float64,
    grad_scale: tl.float64,
    size: tl.int64,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    sample = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    at, inside = sample * size + i, i < size
    residual = _residual(images, denoised, at, inside)
    weight = _dsm_weight(sigma + sample, sigma_data)
    value, good = _dsm_conclude(_total(residual * residual, BLOCK, LANES), weight)
    tl.store(loss + sample, tl.where(good, value, 0.0))
    tl.store(bad + sample, ~good)
    if grad is not None:
        factor = (2 * grad_scale * weight).to(tl.float32)
        tl.store(grad + at, tl.where(good, residual * factor, 0.0), mask=inside)


@triton.jit
def _dsm_sums(
    images: tl.tensor,
    denoised: tl.tensor,
    grad: tl.tensor,
    sigma: tl.tensor,
    sums: tl.tensor,
    sigma_data: tl.float64,
    grad_scale: tl.float64,
    size: tl.int64,
    parts: tl.int32,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    # The weight is known beforehand: the gradient is written at once, as if the sample were good.
    sample, part = _sample_and_part(tl.program_id(0), parts)
    factor = (2 * grad_scale * _dsm_weight(sigma + sample, sigma_data)).to(tl.float32)
    score = tl.zeros((), tl.float64)
    for step in range(STEPS):
        i = (part * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        at, inside = sample * size + i, i < size
        residual = _residual(images, denoised, at, inside)
        score += _total(residual * residual, BLOCK, LANES)
        if grad is not None:
            tl.store(grad + at, residual * factor, mask=inside)
    tl.store(sums + sample * parts + part, score)


@triton.jit
def _dsm_finish(
    grad: tl.tensor,
    sigma: tl.tensor,
    sums: tl.tensor,
    loss: tl.tensor,
    bad: tl.tensor,
    sigma_data: tl.float64,
    size: tl.int64,
    parts: tl.int32,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    sample, part = _sample_and_part(tl.program_id(0), 1 if grad is None else parts)
    score = _sum_of_parts(sums + sample * parts, parts)
    value, good = _dsm_conclude(score, _dsm_weight(sigma + sample, sigma_data))
    if part == 0:
        tl.store(loss + sample, tl.where(good, value, 0.0))
        tl.store(bad + sample, ~good)
    if grad is not None:  # noqa: SIM102 (settled when compiled; the next when run)
        if not good:
            for step in range(STEPS):
                i = (part * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
                nothing = tl.zeros((BLOCK,), tl.float32)
                tl.store(grad + sample * size + i, nothing, mask=i < size)


@triton.jit
def _sample_and_part(program: tl.tensor, parts: tl.int32) -> tuple[tl.tensor, tl.tensor]:
    return (program // parts).to(tl.int64), (program % parts).to(tl.int64)


@triton.jit
def _error_and_difference(
    images: tl.tensor, teacher: tl.tensor, fake: tl.tensor, at: tl.tensor, inside: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """e = T - x and d = T - F, 0 outside."""
    x = tl.load(images + at, mask=inside, other=0).to(tl.float32)
    t = tl.load(teacher + at, mask=inside, other=0).to(tl.float32)
    f = tl.load(fake + at, mask=inside, other=0).to(tl.float32)
    return t - x, t - f


@triton.jit
def _sid_terms(
    error: tl.tensor,
    difference: tl.tensor,
    alpha: tl.float64,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Sums of |e| and of d (e - alpha d)."""
    score = difference * (error - _single(alpha) * difference)
    return _total(tl.abs(error), BLOCK, LANES), _total(score, BLOCK, LANES)


@triton.jit
def _sid_conclude(
    error_sum: tl.tensor, score: tl.tensor, floor: tl.float64, size: tl.int64
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The sample's weight, its loss, and whether it is good."""
    mean = error_sum / tl.maximum(size, 1)
    # A NaN is not below the floor and stays.
    weight = tl.where(mean < floor, floor, mean)
    value = (score / weight).to(tl.float32)
    return weight, value, _is_finite(weight) & _is_finite(value)


@triton.jit
def _sid_gradients(
    grad_images: tl.tensor,
    grad_teacher: tl.tensor,
    grad_fake: tl.tensor,
    at: tl.tensor,
    inside: tl.tensor,
    error: tl.tensor,
    difference: tl.tensor,
    alpha: tl.float64,
    factor: tl.tensor,
    good: tl.tensor,
) -> None:
    """Store the gradients that are asked for; 0 for a bad sample."""
    if grad_images is not None:
        tl.store(grad_images + at, tl.where(good, -difference * factor, 0.0), mask=inside)
    if grad_teacher is not None:
        value = (error + _single(1 - 2 * alpha) * difference) * factor
        tl.store(grad_teacher + at, tl.where(good, value, 0.0), mask=inside)
    if grad_fake is not None:
        value = (_single(2 * alpha) * difference - error) * factor
        tl.store(grad_fake + at, tl.where(good, value, 0.0), mask=inside)


@triton.jit
def _residual(
    images: tl.tensor, denoised: tl.tensor, at: tl.tensor, inside: tl.tensor
) -> tl.tensor:
    x = tl.load(images + at, mask=inside, other=0).to(tl.float32)
    return tl.load(denoised + at, mask=inside, other=0).to(tl.float32) - x


@triton.jit
def _dsm_weight(sigma: tl.tensor, sigma_data: tl.float64) -> tl.tensor:
    level = tl.load(sigma).to(tl.float64)
    return (level * level + sigma_data * sigma_data) / (level * sigma_data * (level * sigma_data))


@triton.jit
def _dsm_conclude(score: tl.tensor, weight: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The sample's loss, and whether it is good."""
    value = (weight * score).to(tl.float32)
    return value, _is_finite(weight) & _is_finite(value)


@triton.jit
def _sum_of_parts(sums: tl.tensor, parts: tl.int32) -> tl.tensor:
    part = tl.arange(0, _MOST_PARTS)
    return tl.sum(tl.load(sums + part, mask=part < parts, other=0))


@triton.jit
def _total(values: tl.tensor, BLOCK: tl.constexpr, LANES: tl.constexpr) -> tl.tensor:
    """Sum in float64 of (BLOCK,) float32: in float32 within each of LANES, then over them."""
    lanes = tl.sum(tl.reshape(values, (BLOCK // LANES, LANES)), axis=0)
    return tl.sum(lanes.to(tl.float64))


@triton.jit
def _single(value: tl.float64) -> tl.tensor:
    """A launch's number in float32: left alone, it would make float64 of a block it meets."""
    return tl.full((), value, tl.float32)


@triton.jit
def _is_finite(value: tl.tensor) -> tl.tensor:
    return tl.abs(value) < float("inf")
