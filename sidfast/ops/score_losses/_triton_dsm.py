"""Triton kernels of denoising score matching."""

from __future__ import annotations

import triton
import triton.language as tl

from sidfast.ops.score_losses._triton_rows import (
    coefficient,
    conclude,
    error_of,
    load,
    sample_and_part,
    sum_of_parts,
    total,
)

_jit = triton.jit(do_not_specialize=["stream"])


@_jit
def dsm_sample(
    images: tl.tensor,
    network: tl.tensor,
    folded: tl.tuple,
    stream: tl.int64,
    grad: tl.tensor,
    sigma: tl.tensor,
    loss: tl.tensor,
    weight: tl.tensor,
    sigma_data: tl.float64,
    grad_scale: tl.float64,
    size: tl.int64,
    SOURCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILES: tl.constexpr,
) -> None:
    sample = tl.program_id(0).to(tl.int64)
    residuals, scores = (), tl.zeros((BLOCK,), tl.float32)
    for tile in tl.static_range(TILES):
        residual = _residual(
            images, network, folded, stream, sample, tile * BLOCK, size, SOURCE, CHANNELS, BLOCK
        )
        scores += residual * residual
        residuals += (residual,)  # type: ignore[assignment]
    now = _weight(sigma + sample, sigma_data)
    good = conclude(loss + sample, weight + sample, total(scores) * now, now, True, True)
    if grad is not None:
        factor = _factor(now, grad_scale, folded, sample, SOURCE)
        for tile in tl.static_range(TILES):
            i = tile * BLOCK + tl.arange(0, BLOCK)
            value = tl.where(good, residuals[tile] * factor, 0.0)
            tl.store(grad + sample * size + i, value, mask=i < size)


@_jit
def dsm_sums(
    images: tl.tensor,
    network: tl.tensor,
    folded: tl.tuple,
    stream: tl.int64,
    grad: tl.tensor,
    sigma: tl.tensor,
    sums: tl.tensor,
    sigma_data: tl.float64,
    grad_scale: tl.float64,
    size: tl.int64,
    parts: tl.int32,
    SOURCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
    MOST_PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILES: tl.constexpr,
) -> None:
    # The weight is known beforehand: the gradient is written at once, as if the sample were good.
    sample, part = sample_and_part(tl.program_id(0), parts)
    factor = _factor(_weight(sigma + sample, sigma_data), grad_scale, folded, sample, SOURCE)
    score = tl.zeros((), tl.float64)
    for step in range(STEPS):
        scores = tl.zeros((BLOCK,), tl.float32)
        for tile in tl.static_range(TILES):
            first = ((part * STEPS + step) * TILES + tile) * BLOCK
            residual = _residual(
                images, network, folded, stream, sample, first, size, SOURCE, CHANNELS, BLOCK
            )
            scores += residual * residual
            if grad is not None:
                i = first + tl.arange(0, BLOCK)
                tl.store(grad + sample * size + i, residual * factor, mask=i < size)
        score += total(scores)
    tl.store(sums + sample * parts + part, score)


@triton.jit
def dsm_finish(
    grad: tl.tensor,
    sigma: tl.tensor,
    sums: tl.tensor,
    loss: tl.tensor,
    weight: tl.tensor,
    sigma_data: tl.float64,
    size: tl.int64,
    parts: tl.int32,
    SOURCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
    MOST_PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILES: tl.constexpr,
) -> None:
    sample, part = sample_and_part(tl.program_id(0), 1 if grad is None else parts)
    score = sum_of_parts(sums + sample * parts, parts, MOST_PARTS)
    now = _weight(sigma + sample, sigma_data)
    good = conclude(loss + sample, weight + sample, score * now, now, True, part == 0)
    if grad is not None:  # noqa: SIM102 (settled when compiled; the next when run)
        if not good:
            for step in range(STEPS * TILES):
                i = (part * STEPS * TILES + step) * BLOCK + tl.arange(0, BLOCK)
                nothing = tl.zeros((BLOCK,), tl.float32)
                tl.store(grad + sample * size + i, nothing, mask=i < size)


@triton.jit
def _residual(
    images: tl.tensor,
    network: tl.tensor,
    folded: tl.tuple,
    stream: tl.int64,
    sample: tl.tensor,
    first: tl.tensor,
    size: tl.int64,
    SOURCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    i = first + tl.arange(0, BLOCK)
    value = load(network, sample * size + i, i < size)
    return error_of(images, value, folded, stream, sample, first, size, SOURCE, CHANNELS, BLOCK)


@triton.jit
def _weight(sigma: tl.tensor, sigma_data: tl.float64) -> tl.tensor:
    level = tl.load(sigma).to(tl.float64)
    return (level * level + sigma_data * sigma_data) / (level * sigma_data * (level * sigma_data))


@triton.jit
def _factor(
    weight: tl.tensor,
    grad_scale: tl.float64,
    folded: tl.tuple,
    sample: tl.tensor,
    SOURCE: tl.constexpr,
) -> tl.tensor:
    return (2 * grad_scale * weight * coefficient(folded, 1, sample, SOURCE)).to(tl.float32)
