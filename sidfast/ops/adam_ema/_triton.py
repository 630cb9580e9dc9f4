"""The optimizer's step in Triton, float32, three launches for any number of parameters.

The first looks for gradients that are not finite (none does where they are clamped), the second
counts the steps and makes the numbers that depend on them, the third updates. Division and square
root are rounded as in C++.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sidfast.base import triton_support
from sidfast.ops.adam_ema import _tables
from sidfast.ops.adam_ema.contract import Operands, Settings, Update

_PIECE = tl.constexpr(4096)  # elements that a program works on
_BLOCK = tl.constexpr(1024)  # of them at a time, one access of each thread
_WARPS = 8
_READERS = tl.constexpr(1024)  # most programs that look for gradients that are not finite
_COUNTED = 256  # parameters whose steps one program counts

# Rows of _tables.Tables.columns; the sizes are the first.
_PARAMS, _FIRST, _SECOND, _STEPS, _AVERAGES, _COPIES = map(tl.constexpr, range(1, 7))
_COPY_DTYPE = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def reasons(op: str, operands: Operands) -> list[str]:
    """Why Triton cannot serve `op`; empty if it can."""
    return triton_support.reasons(operands.skipped, *operands.params) + _tables.reasons(operands)


def adam_ema(operands: Operands) -> Update:
    return _Step(operands)


class _Step:
    """A step over tables of addresses, of tensors that it keeps."""

    def __init__(self, operands: Operands) -> None:
        self._operands = operands
        self._tables = _tables.Tables(operands, _PIECE.value)
        skipped = operands.skipped
        self._bad = skipped.new_empty(_READERS.value, dtype=torch.int32)
        # Rate and scale of each parameter, then what is the same for all: see _decide.
        self._factors = skipped.new_empty((2, self._tables.count), dtype=torch.float32)
        self._common = skipped.new_empty(4, dtype=torch.float32)

    def __call__(self, grads: Sequence[Tensor | None], settings: Settings) -> None:
        operands, tables = self._operands, self._tables
        skipped, count = operands.skipped, tables.count
        if count == 0:
            return
        addresses = tables.gradients(grads)
        work = tables.pieces.shape[1]
        readers = 0 if settings.clamp else min(work, _READERS.value)
        lr, lr_tensor = _tables.number(settings.lr, skipped.device)
        ema_beta, ema_beta_tensor = _tables.number(settings.ema_beta, skipped.device)
        (beta1, beta2), weight_decay = settings.betas, settings.weight_decay
        with torch.cuda.device_of(skipped):
            if readers:
                _look[(readers,)](
                    tables.columns,
                    tables.pieces,
                    addresses,
                    self._bad,
                    count,
                    work,
                    ALIGNED=tables.aligned,
                    num_warps=_WARPS,
                )
            _decide[(-(-count // _COUNTED),)](
                tables.columns,
                addresses,
                self._bad,
                self._factors,
                self._common,
                skipped,
                lr,
                lr_tensor,
                ema_beta,
                ema_beta_tensor,
                math.log(beta1) if beta1 else -math.inf,
                math.log(beta2) if beta2 else -math.inf,
                weight_decay if settings.decoupled else 0.0,
                count,
                readers,
                BLOCK=_COUNTED,
            )
            if work:
                _update[(work,)](
                    tables.columns,
                    tables.pieces,
                    addresses,
                    self._factors,
                    self._common,
                    1 - beta1,
                    beta2,
                    1 - beta2,
                    settings.eps,
                    weight_decay,
                    count,
                    work,
                    FIRST=operands.exp_avgs is not None,
                    ADDS=weight_decay != 0 and not settings.decoupled,
                    CLAMP=settings.clamp,
                    AVERAGES=operands.ema is not None,
                    COPY=_COPY_DTYPE[operands.copies[0].dtype] if operands.copies else None,
                    ALIGNED=tables.aligned,
                    num_warps=_WARPS,
                    enable_fp_fusion=False,
                )


@triton.jit
def _look(
    columns: tl.tensor,
    pieces: tl.tensor,
    gradients: tl.tensor,
    bad: tl.tensor,
    count: tl.int64,
    work: tl.int64,
    ALIGNED: tl.constexpr,
) -> None:
    found = tl.zeros((_PIECE,), tl.int32)
    for piece in range(tl.program_id(0), work, tl.num_programs(0)):
        parameter, begin, size = _piece(columns, pieces, piece, work)
        address = tl.load(gradients + parameter)
        if address != 0:
            gradient = _pointer(address, tl.float32, ALIGNED) + begin
            i = tl.arange(0, _PIECE)
            if begin + _PIECE <= size:
                found |= (~_is_finite(tl.load(gradient + i))).to(tl.int32)
            else:
                values = tl.load(gradient + i, mask=begin + i < size, other=0)
                found |= (~_is_finite(values)).to(tl.int32)
    tl.store(bad + tl.program_id(0), tl.max(found))


@triton.jit
def _decide(
    columns: tl.tensor,
    gradients: tl.tensor,
    bad: tl.tensor,
    factors: tl.tensor,
    common: tl.tensor,
    skipped: tl.tensor,
    lr: tl.float64,
    lr_tensor: tl.tensor,
    ema_beta: tl.float64,
    ema_beta_tensor: tl.tensor,
    log_beta1: tl.float64,
    log_beta2: tl.float64,
    decay: tl.float64,
    count: tl.int64,
    readers: tl.int32,
    BLOCK: tl.constexpr,
) -> None:
    """Counts the steps, or the one left out.

    `common` becomes: share of a parameter that AdamW's decay leaves; share of the average's farther
    end, since the nearer one carries the sum; whether the farther end is the old average; whether
    to skip.
    """
    reader = tl.arange(0, _READERS)
    skip = tl.max(tl.load(bad + reader, mask=reader < readers, other=0))
    rate = _number(lr, lr_tensor)
    if tl.program_id(0) == 0:
        beta = _number(ema_beta, ema_beta_tensor)
        mostly_new = beta < 0.5
        tl.store(common, (1 - rate * decay).to(tl.float32))
        tl.store(common + 1, tl.where(mostly_new, beta, 1 - beta).to(tl.float32))
        tl.store(common + 2, mostly_new.to(tl.float32))
        tl.store(common + 3, skip.to(tl.float32))
        tl.store(skipped, tl.load(skipped) + skip)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    given = tl.load(gradients + i, mask=i < count, other=0) != 0
    counts = (skip == 0) & given
    address = tl.load(columns + _STEPS * count + i, mask=counts, other=0)
    steps = address.to(tl.pointer_type(tl.float32))
    before = tl.load(steps, mask=counts, other=0)
    tl.store(steps, before + 1, mask=counts)
    n = before.to(tl.float64) + 1
    tl.store(factors + i, (-rate / (1 - tl.exp(n * log_beta1))).to(tl.float32), mask=counts)
    scale = 1 / tl.sqrt(1 - tl.exp(n * log_beta2))
    tl.store(factors + count + i, scale.to(tl.float32), mask=counts)


@triton.jit
def _update(
    columns: tl.tensor,
    pieces: tl.tensor,
    gradients: tl.tensor,
    factors: tl.tensor,
    common: tl.tensor,
    fresh1: tl.float32,
    beta2: tl.float32,
    fresh2: tl.float32,
    eps: tl.float32,
    added: tl.float32,
    count: tl.int64,
    work: tl.int64,
    FIRST: tl.constexpr,
    ADDS: tl.constexpr,
    CLAMP: tl.constexpr,
    AVERAGES: tl.constexpr,
    COPY: tl.constexpr,
    ALIGNED: tl.constexpr,
) -> None:
    if tl.load(common + 3) == 0:
        # Backwards, since the gradients that were read last are still in the second-level cache.
        parameter, begin, size = _piece(columns, pieces, work - 1 - tl.program_id(0), work)
        address = tl.load(gradients + parameter)
        tensors = (
            _column(columns, _PARAMS, count, parameter, ALIGNED),
            _pointer(address, tl.float32, ALIGNED),
            _column(columns, _FIRST, count, parameter, ALIGNED),
            _column(columns, _SECOND, count, parameter, ALIGNED),
            _column(columns, _AVERAGES, count, parameter, ALIGNED),
            _pointer(tl.load(columns + _COPIES * count + parameter), COPY, ALIGNED),
        )
        numbers = (
            tl.load(factors + parameter),
            tl.load(factors + count + parameter),
            tl.load(common),
            tl.load(common + 1),
            tl.load(common + 2) != 0,
            fresh1,
            beta2,
            fresh2,
            eps,
            added,
        )
        updates = address != 0
        if begin + _PIECE <= size:
            for block in range(0, _PIECE, _BLOCK):
                i = begin + block + tl.arange(0, _BLOCK)
                _update_block(
                    i, None, updates, tensors, numbers, FIRST, ADDS, CLAMP, AVERAGES, COPY
                )
        else:
            for start in range(begin, size, _BLOCK):
                i = start + tl.arange(0, _BLOCK)
                _update_block(
                    i, i < size, updates, tensors, numbers, FIRST, ADDS, CLAMP, AVERAGES, COPY
                )


@triton.jit
def _update_block(
    i: tl.tensor,
    inside: tl.tensor,
    updates: tl.tensor,
    tensors: tl.tuple,
    numbers: tl.tuple,
    FIRST: tl.constexpr,
    ADDS: tl.constexpr,
    CLAMP: tl.constexpr,
    AVERAGES: tl.constexpr,
    COPY: tl.constexpr,
) -> None:
    """Elements i of a parameter, all or those `inside`; averaged only, unless it `updates`."""
    params, gradients, firsts, seconds, averages, copies = tensors
    rate, scale, kept, share, mostly_new, fresh1, beta2, fresh2, eps, added = numbers
    value = tl.load(params + i, mask=inside)
    if updates:
        gradient = tl.load(gradients + i, mask=inside)
        if CLAMP:
            bad = ~_is_finite(gradient)
            limit = tl.where(gradient > 0, 1e5, tl.where(gradient < 0, -1e5, 0.0))
            gradient = tl.where(bad, limit, gradient)
            tl.store(gradients + i, gradient, mask=bad if inside is None else bad & inside)
        if ADDS:
            gradient = tl.fma(added, value, gradient)
        direction = gradient
        if FIRST:
            old = tl.load(firsts + i, mask=inside)
            direction = tl.fma(fresh1, gradient - old, old)
            tl.store(firsts + i, direction, mask=inside)
        square = beta2 * tl.load(seconds + i, mask=inside)
        square = tl.fma(fresh2 * gradient, gradient, square)
        tl.store(seconds + i, square, mask=inside)
        ratio = tl.div_rn(direction, tl.fma(tl.sqrt_rn(square), scale, eps))
        value = tl.fma(rate, ratio, value * kept)
        tl.store(params + i, value, mask=inside)
    if AVERAGES:
        old = tl.load(averages + i, mask=inside)
        near = tl.where(mostly_new, value, old)
        far = tl.where(mostly_new, old, value)
        tl.store(averages + i, tl.fma(share, far - near, near), mask=inside)
    if COPY is not None:
        tl.store(copies + i, value.to(COPY), mask=inside)


@triton.jit
def _piece(
    columns: tl.tensor, pieces: tl.tensor, piece: tl.tensor, work: tl.int64
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Whose a piece is, its first element, and how many elements that parameter has."""
    parameter = tl.load(pieces + piece).to(tl.int64)
    place = tl.load(pieces + work + piece).to(tl.int64)
    return parameter, place * _PIECE, tl.load(columns + parameter)


@triton.jit
def _column(
    columns: tl.tensor,
    row: tl.constexpr,
    count: tl.int64,
    parameter: tl.tensor,
    ALIGNED: tl.constexpr,
) -> tl.tensor:
    """Where a parameter's tensor of that row begins."""
    return _pointer(tl.load(columns + row * count + parameter), tl.float32, ALIGNED)


@triton.jit
def _pointer(address: tl.tensor, dtype: tl.constexpr, ALIGNED: tl.constexpr) -> tl.tensor:
    pointer = address.to(tl.pointer_type(tl.float32 if dtype is None else dtype))
    return tl.multiple_of(pointer, 16) if ALIGNED else pointer


@triton.jit
def _number(value: tl.float64, held: tl.tensor) -> tl.tensor:
    """A setting in float64: from the device, where a tensor holds it."""
    return tl.cast(value if held is None else tl.load(held), tl.float64)


@triton.jit
def _is_finite(value: tl.tensor) -> tl.tensor:
    return tl.abs(value) < float("inf")
