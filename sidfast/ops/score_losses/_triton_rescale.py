"""Triton kernel for gradients that were made for another upstream gradient than came."""

from __future__ import annotations

import triton
import triton.language as tl

from sidfast.ops.score_losses._triton_rows import load, sample_and_part


@triton.jit(do_not_specialize=["stride"])
def rescale_parts(
    grads: tl.tuple,
    upstream: tl.tensor,
    stride: tl.int64,
    made_for: tl.float64,
    size: tl.int64,
    parts: tl.int32,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A part of a sample of each gradient, in place, unless there is nothing to do."""
    sample, part = sample_and_part(tl.program_id(0), parts)
    now, before = tl.load(upstream + sample * stride), tl.cast(made_for, tl.float32)
    if now != before:
        factor = tl.div_rn(now, before)
        i = part * BLOCK + tl.arange(0, BLOCK)
        at, inside = sample * size + i, i < size
        for which in tl.static_range(COUNT):
            tl.store(grads[which] + at, load(grads[which], at, inside) * factor, mask=inside)
