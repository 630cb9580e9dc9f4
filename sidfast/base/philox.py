"""Philox words and normals in plain PyTorch, on any device: what every back end is held against.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw, 2011, "Parallel random numbers: as easy as 1, 2, 3")
on 32-bit words held in int64 tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sidfast.base.batch import spread

WORD = 0xFFFFFFFF
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
UNIT = 2.0**-24


def multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low word of the product of words `a` with `b` <= 2^32; no int64 ever overflows."""
    low = a * (b & 0xFFFF)
    middle = a * (b >> 16) + (low >> 16)
    return middle >> 16, (middle & 0xFFFF) << 16 | (low & 0xFFFF)


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The four output words for four counter words and two key words, broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = multiply(c0, MULTIPLIERS[0])
        high1, low1 = multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def blocks(seed: Tensor, index: Tensor, size: int, stream: int) -> tuple[Tensor, ...]:
    """Words r0 ... r3, each (B, ceil(size / 4)): element e is word e & 3 of block e >> 2."""
    block = torch.arange(-(-size // 4), device=index.device)
    sample = index[:, None]
    counter = (block, sample & WORD, sample >> 32 & WORD, torch.full_like(block, stream))
    return philox(counter, (seed & WORD, seed >> 32 & WORD))


def interleave(parts: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Four (B, blocks) tensors, element by element in turn, cut to `shape`."""
    size = math.prod(shape[1:])
    return torch.stack(tuple(parts), dim=-1).flatten(1)[:, :size].reshape(shape)


def words(seed: Tensor, index: Tensor, shape: Sequence[int], stream: int) -> Tensor:
    """One 32-bit word per element, as int64."""
    return interleave(blocks(seed, index, math.prod(shape[1:]), stream), shape)


def normal64(seed: Tensor, index: Tensor, shape: Sequence[int], stream: int) -> Tensor:
    """Unit normals by Box and Muller's transform, in float64: |value| <= 5.77."""
    parts: list[Tensor] = []
    r = blocks(seed, index, math.prod(shape[1:]), stream)
    for first, second in ((r[0], r[1]), (r[2], r[3])):
        u = ((first >> 8) + 1).double() * UNIT
        angle = (second >> 8).double() * (2 * math.pi * UNIT)
        radius = torch.sqrt(-2 * torch.log(u))
        parts += (radius * torch.cos(angle), radius * torch.sin(angle))
    return interleave(parts, shape)


def noised(x: Tensor, sigma: Tensor, seed: Tensor, index: Tensor, stream: int) -> Tensor:
    """x + sigma eps in `x`'s dtype, sigma (B,): what `add_noise` defines."""
    return x + spread(sigma, x) * normal64(seed, index, x.shape, stream).to(x.dtype)
