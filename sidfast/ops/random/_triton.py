"""The keyed random numbers in Triton, float32 inside, one launch each.

A program makes a tile: rows of pixels, four to a counter. Where every tensor is stored in logical
order a row is a whole sample; else it is a channel of one sample, so that a tile is whole pixels
either way it is stored.
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
from sidfast.base.triton_noise import normals_of_counters, normals_of_elements
from sidfast.ops.random.contract import noise_like

_OUTPUT_DTYPE = {"normal": 4, "uniform": 4, "add_noise": 6}  # position of dtype in the schema
_STORAGE = (torch.float32, torch.bfloat16, torch.float16)

# A tile of 256 counters, 1024 elements: with four warps each thread makes two counters' words at
# a time, which hides the latency of their multiplications, and stores 16 bytes at once or more.
_COUNTERS = 256
_ROWS = 16  # most channels of a tile, which keeps 64 pixels in it
# Multiplication and addition fuse only where the source says fma, as in C++.
_OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": False}


def reasons(op: str, *args: Any) -> list[str]:
    """Why Triton cannot serve `op(*args)`; empty if it can."""
    found = triton_support.reasons(*[arg for arg in args if isinstance(arg, Tensor)])
    allowed = (torch.float32, torch.float64) if op == "uniform" else _STORAGE
    dtypes = {args[0].dtype} if op in ("add_noise", "dropout") else set()
    if op in _OUTPUT_DTYPE:
        dtypes.add(args[_OUTPUT_DTYPE[op]])
    found += [f"does not compute in {each}" for each in dtypes if each not in allowed]
    if op == "dropout" and round(args[1] * 2**32) >= 2**32:
        found.append("p rounds to 1")
    return found


def normal(
    seed: Tensor, index: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype
) -> Tensor:
    return _draw("normal", index.new_empty(shape, dtype=dtype), seed, index, stream)


def uniform(
    seed: Tensor, index: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype
) -> Tensor:
    return _draw("uniform", index.new_empty(shape, dtype=dtype), seed, index, stream)


def integers(seed: Tensor, index: Tensor, shape: Sequence[int], high: int, stream: int) -> Tensor:
    return _draw("integers", index.new_empty(shape), seed, index, stream, high)


def add_noise(
    x: Tensor,
    sigma: Tensor,
    scale: Tensor | None,
    seed: Tensor,
    index: Tensor,
    stream: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    out = noise_like(x, dtype, memory_format)
    scale = None if scale is None else scale.contiguous()
    _transform(_add_noise_kernel, x, out, seed, index, stream, sigma.contiguous(), scale)
    return out


def dropout(x: Tensor, p: float, seed: Tensor, index: Tensor, stream: int) -> Tensor:
    out = noise_like(x)
    _transform(_dropout_kernel, x, out, seed, index, stream, round(p * 2**32), 1 / (1 - p))
    return out


def _draw(
    kind: str, out: Tensor, seed: Tensor, index: Tensor, stream: int, high: int = 0
) -> Tensor:
    if out.numel() == 0:
        return out
    samples, size = out.shape[0], math.prod(out.shape[1:])
    rows, counters = _planar_tile(size)
    columns = -(-size // (4 * counters))
    with torch.cuda.device_of(out):
        _draw_kernel[(-(-samples // rows) * columns,)](
            out,
            seed,
            index.contiguous(),
            stream,
            high,
            samples,
            size,
            columns,
            KIND=kind,
            ROWS=rows,
            COUNTERS=counters,
            **_OPTIONS,
        )
    return out


def _transform(
    kernel: Any, x: Tensor, out: Tensor, seed: Tensor, index: Tensor, stream: int, *args: Any
) -> None:
    if out.numel() == 0:
        return
    result, x = out, x if _dense(x) else x.contiguous()
    if not _dense(out):
        out = torch.empty_like(out, memory_format=torch.contiguous_format)
    x_last, out_last = not x.is_contiguous(), not out.is_contiguous()
    samples, channels, pixels = x.shape[0], 1, math.prod(x.shape[1:])
    if x_last or out_last:
        channels, pixels = x.shape[1], pixels // x.shape[1]
        rows = min(_ROWS, triton.next_power_of_2(channels))
        counters = _COUNTERS // rows
        tiles = samples * -(-channels // rows)
    else:
        rows, counters = _planar_tile(pixels)
        tiles = -(-samples // rows)
    columns = -(-pixels // (4 * counters))
    with torch.cuda.device_of(out):
        kernel[(tiles * columns,)](
            x,
            out,
            seed,
            index.contiguous(),
            stream,
            *args,
            samples,
            channels,
            pixels,
            columns,
            ROWS=rows,
            COUNTERS=counters,
            WHOLE_COUNTERS=channels == 1 or pixels % 4 == 0,
            X_LAST=x_last,
            OUT_LAST=out_last,
            **_OPTIONS,
        )
    if result is not out:
        result.copy_(out)


def _planar_tile(size: int) -> tuple[int, int]:
    """Rows (samples) and counters of a tile of samples of `size` elements."""
    counters = min(_COUNTERS, triton.next_power_of_2(-(-size // 4)))
    return _COUNTERS // counters, counters


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or (
        x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    )


# Numbers that only batches and keys change must not lead to code of their own.
_jit = triton.jit(
    do_not_specialize=["stream", "high", "threshold", "factor", "samples", "channels", "columns"]
)


@_jit
def _draw_kernel(
    out: tl.tensor,
    seed: tl.tensor,
    index: tl.tensor,
    stream: tl.int64,
    high: tl.int64,
    samples: tl.int64,
    size: tl.int64,
    columns: tl.int32,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    COUNTERS: tl.constexpr,
) -> None:
    sample, channel, counter, pixel, inside = _tile(
        samples, 1, size, columns, ROWS, COUNTERS, False
    )
    key = _key(seed, index, stream, sample, samples)
    if KIND == "normal":
        value = _normals(key, channel, counter, pixel, size, True)
    elif KIND == "uniform":
        value = (_words(key, channel, counter, pixel, size, True) >> 8).to(tl.float32) * 2.0**-24
    else:
        word = _words(key, channel, counter, pixel, size, True)
        value = (word.to(tl.uint64) * high.to(tl.uint64)) >> 32
    tl.store(out + _offsets(sample, channel, pixel, 1, size, False), value, mask=inside)


@_jit
def _add_noise_kernel(
    x: tl.tensor,
    out: tl.tensor,
    seed: tl.tensor,
    index: tl.tensor,
    stream: tl.int64,
    sigma: tl.tensor,
    scale: tl.tensor,
    samples: tl.int64,
    channels: tl.int64,
    pixels: tl.int64,
    columns: tl.int32,
    ROWS: tl.constexpr,
    COUNTERS: tl.constexpr,
    WHOLE_COUNTERS: tl.constexpr,
    X_LAST: tl.constexpr,
    OUT_LAST: tl.constexpr,
) -> None:
    sample, channel, counter, pixel, inside = _tile(
        samples, channels, pixels, columns, ROWS, COUNTERS, X_LAST or OUT_LAST
    )
    at = x + _offsets(sample, channel, pixel, channels, pixels, X_LAST)
    value = tl.load(at, mask=inside, other=0).to(tl.float32)
    key = _key(seed, index, stream, sample, samples)
    noise = _normals(key, channel, counter, pixel, pixels, WHOLE_COUNTERS)
    level = tl.load(sigma + sample, mask=sample < samples, other=0)
    value = tl.fma(level[:, None], noise, value)
    if scale is not None:
        value *= tl.load(scale + sample, mask=sample < samples, other=0)[:, None]
    tl.store(out + _offsets(sample, channel, pixel, channels, pixels, OUT_LAST), value, mask=inside)


@_jit
def _dropout_kernel(
    x: tl.tensor,
    out: tl.tensor,
    seed: tl.tensor,
    index: tl.tensor,
    stream: tl.int64,
    threshold: tl.int64,
    factor: tl.float32,
    samples: tl.int64,
    channels: tl.int64,
    pixels: tl.int64,
    columns: tl.int32,
    ROWS: tl.constexpr,
    COUNTERS: tl.constexpr,
    WHOLE_COUNTERS: tl.constexpr,
    X_LAST: tl.constexpr,
    OUT_LAST: tl.constexpr,
) -> None:
    sample, channel, counter, pixel, inside = _tile(
        samples, channels, pixels, columns, ROWS, COUNTERS, X_LAST or OUT_LAST
    )
    at = x + _offsets(sample, channel, pixel, channels, pixels, X_LAST)
    value = tl.load(at, mask=inside, other=0).to(tl.float32) * factor
    key = _key(seed, index, stream, sample, samples)
    kept = _words(key, channel, counter, pixel, pixels, WHOLE_COUNTERS) >= threshold.to(tl.uint32)
    value = tl.where(kept, value, 0.0)
    tl.store(out + _offsets(sample, channel, pixel, channels, pixels, OUT_LAST), value, mask=inside)


@_jit
def _tile(
    samples: tl.int64,
    channels: tl.int64,
    pixels: tl.int64,
    columns: tl.int32,
    ROWS: tl.constexpr,
    COUNTERS: tl.constexpr,
    ROWS_ARE_CHANNELS: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """This program's samples and channels (ROWS,), counters of pixels (COUNTERS,), pixels
    (4 COUNTERS,), and which of (ROWS, 4 COUNTERS) exist. Without channel rows channels is 1."""
    row = tl.program_id(0) // columns
    column = (tl.program_id(0) % columns).to(tl.int64)
    lane = tl.arange(0, ROWS).to(tl.int64)
    if ROWS_ARE_CHANNELS:
        groups = tl.cdiv(channels, ROWS).to(tl.int32)
        sample = (row // groups).to(tl.int64) + tl.zeros_like(lane)
        channel = (row % groups).to(tl.int64) * ROWS + lane
        exists = channel < channels
    else:
        sample = row.to(tl.int64) * ROWS + lane
        channel = tl.zeros_like(lane)
        exists = sample < samples
    counter = column * COUNTERS + tl.arange(0, COUNTERS)
    pixel = column * (4 * COUNTERS) + tl.arange(0, 4 * COUNTERS)
    return sample, channel, counter, pixel, exists[:, None] & (pixel < pixels)[None, :]


@_jit
def _offsets(
    sample: tl.tensor,
    channel: tl.tensor,
    pixel: tl.tensor,
    channels: tl.int64,
    pixels: tl.int64,
    LAST: tl.constexpr,
) -> tl.tensor:
    """Where the tile's elements are stored, (ROWS, 4 COUNTERS)."""
    if LAST:
        return (sample * (pixels * channels) + channel)[:, None] + (pixel * channels)[None, :]
    return ((sample * channels + channel) * pixels)[:, None] + pixel[None, :]


@_jit
def _key(
    seed: tl.tensor, index: tl.tensor, stream: tl.int64, sample: tl.tensor, samples: tl.int64
) -> tuple[tl.tensor, ...]:
    """Seed and the counter's words 1, 2 and 3, the first two (ROWS, 1)."""
    number = tl.load(index + sample, mask=sample < samples, other=0)[:, None]
    return tl.load(seed), number.to(tl.uint32), (number >> 32).to(tl.uint32), stream.to(tl.uint32)


@_jit
def _words(
    key: tl.tuple,
    channel: tl.tensor,
    counter: tl.tensor,
    pixel: tl.tensor,
    pixels: tl.int64,
    WHOLE_COUNTERS: tl.constexpr,
) -> tl.tensor:
    """A word for each element of the tile, (ROWS, 4 COUNTERS) uint32."""
    seed, low, high, stream = key
    if WHOLE_COUNTERS:
        block = _counters(channel, counter, pixels).to(tl.uint32)
        r0, r1, r2, r3 = tl.philox(seed, block, low, high, stream)
        return tl.interleave(tl.interleave(r0, r2), tl.interleave(r1, r3))
    element = _elements(channel, pixel, pixels)
    r0, r1, r2, r3 = tl.philox(seed, (element >> 2).to(tl.uint32), low, high, stream)
    first, second = tl.where(element & 2 == 0, r0, r2), tl.where(element & 2 == 0, r1, r3)
    return tl.where(element & 1 == 0, first, second)


@_jit
def _normals(
    key: tl.tuple,
    channel: tl.tensor,
    counter: tl.tensor,
    pixel: tl.tensor,
    pixels: tl.int64,
    WHOLE_COUNTERS: tl.constexpr,
) -> tl.tensor:
    """A unit normal for each element of the tile, (ROWS, 4 COUNTERS) float32."""
    if WHOLE_COUNTERS:
        return normals_of_counters(key, _counters(channel, counter, pixels))
    return normals_of_elements(key, _elements(channel, pixel, pixels))


@_jit
def _counters(channel: tl.tensor, counter: tl.tensor, pixels: tl.int64) -> tl.tensor:
    """The sample's counters, where none spans two channels: (ROWS, COUNTERS)."""
    return (channel * (pixels // 4))[:, None] + counter[None, :]


@_jit
def _elements(channel: tl.tensor, pixel: tl.tensor, pixels: tl.int64) -> tl.tensor:
    """The sample's elements, (ROWS, 4 COUNTERS)."""
    return (channel * pixels)[:, None] + pixel[None, :]
