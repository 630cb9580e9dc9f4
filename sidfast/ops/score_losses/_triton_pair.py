"""Triton kernels of the losses of a teacher and a fake score: SiD's, and the DMD family's.

With e = T - x and d = T - F, per-sample sums of |e| and of d (e - alpha d) or d d.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sidfast.ops.score_losses._triton_rows import (
    coefficient,
    conclude,
    error_of,
    is_finite,
    load,
    sample_and_part,
    single,
    sum_of_parts,
    total,
)

_jit = triton.jit(do_not_specialize=["stream"])


@_jit
def pair_sample(
    images: tl.tensor,
    teacher: tl.tensor,
    fake: tl.tensor,
    folded: tl.tuple,
    stream: tl.int64,
    grads: tl.tuple,
    loss: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    alpha: tl.float64,
    floor: tl.float64,
    eps: tl.float64,
    grad_scale: tl.float64,
    size: tl.int64,
    KIND: tl.constexpr,
    SOURCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILES: tl.constexpr,
) -> None:
    sample = tl.program_id(0).to(tl.int64)
    batches = (images, teacher, fake)
    errors, differences, error_sum, score = _tiles(
        batches, folded, stream, sample, 0, size, alpha, KIND, SOURCE, CHANNELS, BLOCK, TILES
    )
    sample_weight, good = _conclude(
        loss, weight, scale, floor, eps, error_sum, score, sample, size, True, KIND
    )
    factor = grad_scale * sample_weight
    for tile in tl.static_range(TILES):
        error, difference = errors[tile], differences[tile]
        first = tile * BLOCK
        _gradients(
            grads, folded, factor, good, error, difference, alpha, sample, first, size, SOURCE
        )


@_jit
def pair_sums(
    images: tl.tensor,
    teacher: tl.tensor,
    fake: tl.tensor,
    folded: tl.tuple,
    stream: tl.int64,
    sums: tl.tensor,
    alpha: tl.float64,
    size: tl.int64,
    parts: tl.int32,
    KIND: tl.constexpr,
    SOURCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
    MOST_PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILES: tl.constexpr,
) -> None:
    sample, part = sample_and_part(tl.program_id(0), parts)
    error_sum = tl.zeros((), tl.float64)
    score = tl.zeros((), tl.float64)
    batches = (images, teacher, fake)
    for step in range(STEPS):
        first = (part * STEPS + step) * (TILES * BLOCK)
        _, _, step_error, step_score = _tiles(
            batches,
            folded,
            stream,
            sample,
            first,
            size,
            alpha,
            KIND,
            SOURCE,
            CHANNELS,
            BLOCK,
            TILES,
        )
        error_sum += step_error
        score += step_score
    tl.store(sums + 2 * sample * parts + part, error_sum)
    tl.store(sums + (2 * sample + 1) * parts + part, score)


@_jit
def pair_finish(
    images: tl.tensor,
    teacher: tl.tensor,
    fake: tl.tensor,
    folded: tl.tuple,
    stream: tl.int64,
    grads: tl.tuple,
    sums: tl.tensor,
    loss: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    alpha: tl.float64,
    floor: tl.float64,
    eps: tl.float64,
    grad_scale: tl.float64,
    size: tl.int64,
    parts: tl.int32,
    KIND: tl.constexpr,
    SOURCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
    MOST_PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILES: tl.constexpr,
) -> None:
    # Backwards, since what was read last is still in the second-level cache.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    gradients: tl.constexpr = (
        grads[0] is not None or grads[1] is not None or grads[2] is not None or grads[3] is not None
    )
    sample, part = sample_and_part(program, parts if gradients else 1)
    error_sum = sum_of_parts(sums + 2 * sample * parts, parts, MOST_PARTS)
    score = sum_of_parts(sums + (2 * sample + 1) * parts, parts, MOST_PARTS)
    sample_weight, good = _conclude(
        loss, weight, scale, floor, eps, error_sum, score, sample, size, part == 0, KIND
    )
    if gradients:
        factor = grad_scale * sample_weight
        batches = (images, teacher, fake)
        for step in range(STEPS * TILES):
            first = (part * (STEPS * TILES) + step) * BLOCK
            error, difference = _pair(
                batches, folded, stream, sample, first, size, SOURCE, CHANNELS, BLOCK
            )
            _gradients(
                grads, folded, factor, good, error, difference, alpha, sample, first, size, SOURCE
            )


@triton.jit
def _tiles(
    batches: tl.tuple,
    folded: tl.tuple,
    stream: tl.int64,
    sample: tl.tensor,
    first: tl.tensor,
    size: tl.int64,
    alpha: tl.float64,
    KIND: tl.constexpr,
    SOURCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILES: tl.constexpr,
) -> tuple[tl.tuple, tl.tuple, tl.tensor, tl.tensor]:
    """e and d of each tile, and the sums of |e| and of the loss's terms."""
    errors, differences = (), ()
    error_sums, scores = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for tile in tl.static_range(TILES):
        start = first + tile * BLOCK
        error, difference = _pair(
            batches, folded, stream, sample, start, size, SOURCE, CHANNELS, BLOCK
        )
        error_sums += tl.abs(error)
        scores += _score(error, difference, alpha, KIND)
        errors += (error,)  # type: ignore[assignment]
        differences += (difference,)  # type: ignore[assignment]
    return errors, differences, total(error_sums), total(scores)


@triton.jit
def _pair(
    batches: tl.tuple,
    folded: tl.tuple,
    stream: tl.int64,
    sample: tl.tensor,
    first: tl.tensor,
    size: tl.int64,
    SOURCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """e and d, 0 outside; in d the terms c_skip x_t of both networks cancel before they round."""
    images, teacher, fake = batches
    i = first + tl.arange(0, BLOCK)
    at, inside = sample * size + i, i < size
    value = load(teacher, at, inside)
    difference = value - load(fake, at, inside)
    if SOURCE != "denoised":
        difference *= tl.load(folded[1] + sample)
    error = error_of(images, value, folded, stream, sample, first, size, SOURCE, CHANNELS, BLOCK)
    return error, difference


@triton.jit
def _score(
    error: tl.tensor, difference: tl.tensor, alpha: tl.float64, KIND: tl.constexpr
) -> tl.tensor:
    """What a loss adds up."""
    factor = error - single(alpha) * difference if KIND == "sid" else difference
    return difference * factor


@triton.jit
def _conclude(
    loss: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    floor: tl.float64,
    eps: tl.float64,
    error_sum: tl.tensor,
    score: tl.tensor,
    sample: tl.tensor,
    size: tl.int64,
    writes: tl.tensor,
    KIND: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """The sample's weight and whether it is good; stores both, and the loss."""
    mean = error_sum / tl.maximum(size, 1)
    # A NaN is not below the floor and stays.
    now = 1.0 / (tl.where(mean < floor, floor, mean) + eps)
    if scale is not None:
        now *= tl.load(scale + sample).to(tl.float64)
    value = score * now if KIND == "sid" else 0.5 * score * now * now
    good = conclude(loss + sample, weight + sample, value, now, is_finite(mean), writes)
    return now, good


@triton.jit
def _gradients(
    grads: tl.tuple,
    folded: tl.tuple,
    factor: tl.tensor,
    good: tl.tensor,
    error: tl.tensor,
    difference: tl.tensor,
    alpha: tl.float64,
    sample: tl.tensor,
    first: tl.tensor,
    size: tl.int64,
    SOURCE: tl.constexpr,
) -> None:
    """Store the gradients that are asked for; 0 for a bad sample."""
    images, teacher, fake, noisy = grads
    i = first + tl.arange(0, difference.shape[0])
    at, inside = sample * size + i, i < size
    c_skip = coefficient(folded, 0, sample, SOURCE)
    c_out = coefficient(folded, 1, sample, SOURCE)
    network_factor = (factor * c_out).to(tl.float32)
    if images is not None:
        # Noisy images that are made of these hand their gradient on to them.
        through = factor * (c_skip - 1) if SOURCE == "noise" else -factor
        value = difference * through.to(tl.float32)
        tl.store(images + at, tl.where(good, value, 0.0), mask=inside)
    if teacher is not None:
        value = (error + single(1 - 2 * alpha) * difference) * network_factor
        tl.store(teacher + at, tl.where(good, value, 0.0), mask=inside)
    if fake is not None:
        value = (single(2 * alpha) * difference - error) * network_factor
        tl.store(fake + at, tl.where(good, value, 0.0), mask=inside)
    if noisy is not None:
        value = difference * (factor * c_skip).to(tl.float32)
        tl.store(noisy + at, tl.where(good, value, 0.0), mask=inside)
