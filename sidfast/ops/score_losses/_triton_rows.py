"""What the Triton kernels of the score losses share: how a sample is read and summed.

SOURCE says what networks put out and what is known of their input: "denoised" images; "noisy", raw
outputs for noisy images that are given; "noise", raw outputs for images whose noise is made again.
`folded` is None, (c_skip, c_out, noisy) or (c_skip, c_out, sigma, seed, index) then.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sidfast.base.triton_noise import normals_of_counters, normals_of_elements


@triton.jit
def sample_and_part(program: tl.tensor, parts: tl.int32) -> tuple[tl.tensor, tl.tensor]:
    return (program // parts).to(tl.int64), (program % parts).to(tl.int64)


@triton.jit
def load(values: tl.tensor, at: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """In float32, 0 outside."""
    return tl.load(values + at, mask=inside, other=0).to(tl.float32)


@triton.jit
def error_of(
    images: tl.tensor,
    value: tl.tensor,
    folded: tl.tuple,
    stream: tl.int64,
    sample: tl.tensor,
    first: tl.tensor,
    size: tl.int64,
    SOURCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """D - x for a network's output `value` at the sample's elements first ... first + BLOCK."""
    i = first + tl.arange(0, BLOCK)
    at, inside = sample * size + i, i < size
    x = load(images, at, inside)
    if SOURCE == "denoised":
        error = value - x
    else:
        if SOURCE == "noise":
            noise = _noise(folded, stream, sample, first, size, CHANNELS, BLOCK)
            x_t = tl.fma(tl.load(folded[2] + sample), tl.where(inside, noise, 0.0), x)
        else:
            x_t = load(folded[2], at, inside)
        # c_skip x_t and x nearly cancel at little noise: each product rounds once, after its sum.
        c_skip, c_out = tl.load(folded[0] + sample), tl.load(folded[1] + sample)
        error = tl.fma(c_out, value, tl.fma(c_skip, x_t, -x))
    return error


@triton.jit
def _noise(
    folded: tl.tuple,
    stream: tl.int64,
    sample: tl.tensor,
    first: tl.tensor,
    size: tl.int64,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """The images' noise; CHANNELS is 1 where elements are stored in the order of their numbers."""
    number = tl.load(folded[4] + sample)
    key = (
        tl.load(folded[3]),
        number.to(tl.uint32),
        (number >> 32).to(tl.uint32),
        stream.to(tl.uint32),
    )
    if CHANNELS == 1:
        noise = normals_of_counters(key, first // 4 + tl.arange(0, BLOCK // 4))
    else:
        i = first + tl.arange(0, BLOCK)
        noise = normals_of_elements(key, i % CHANNELS * (size // CHANNELS) + i // CHANNELS)
    return noise


@triton.jit
def coefficient(
    folded: tl.tuple, WHICH: tl.constexpr, sample: tl.tensor, SOURCE: tl.constexpr
) -> tl.tensor:
    """c_skip (0) or c_out (1) in float64; 1 for denoised images."""
    if SOURCE == "denoised":
        value = tl.full((), 1.0, tl.float64)
    else:
        value = tl.load(folded[WHICH] + sample).to(tl.float64)
    return value


@triton.jit
def conclude(
    loss: tl.tensor,
    weight: tl.tensor,
    value: tl.tensor,
    sample_weight: tl.tensor,
    good: tl.tensor,
    writes: tl.tensor,
) -> tl.tensor:
    """Store a sample's loss and weight where `writes` is set; whether they are finite too."""
    value, sample_weight = value.to(tl.float32), sample_weight.to(tl.float32)
    good = good & is_finite(value) & is_finite(sample_weight)
    tl.store(loss, tl.where(good, value, 0.0), mask=writes)
    tl.store(weight, tl.where(good, sample_weight, float("nan")), mask=writes)
    return good


@triton.jit
def sum_of_parts(sums: tl.tensor, parts: tl.int32, MOST_PARTS: tl.constexpr) -> tl.tensor:
    part = tl.arange(0, MOST_PARTS)
    return tl.sum(tl.load(sums + part, mask=part < parts, other=0))


@triton.jit
def total(values: tl.tensor) -> tl.tensor:
    """Sum in float64 of float32 that are sums of a few terms each."""
    return tl.sum(values.to(tl.float64))


@triton.jit
def single(value: tl.float64) -> tl.tensor:
    """A launch's number in float32: left alone, it would make float64 of a block it meets."""
    return tl.full((), value, tl.float32)


@triton.jit
def is_finite(value: tl.tensor) -> tl.tensor:
    return tl.abs(value) < float("inf")
