"""The address of random numbers: which seed, which samples, which stream."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sidfast.base.checks import check_tensor
from sidfast.base.errors import InputError
from sidfast.base.kept import kept

MOST_ELEMENTS = 2**34  # of a sample


class Key(NamedTuple):
    """Where in the randomness contract a draw takes its numbers from.

    Attributes:
        seed: the run's seed, an int in [-2^63, 2^63) or a 0-d int64 tensor on `index`'s device.
        index: (B,) int64, the sample numbers; a sample draws the same numbers in any batch.
        stream: number of an independent stream, 0 ... 2^32 - 1.
    """

    seed: int | Tensor
    index: Tensor  # type: ignore[assignment]  # tuple.index is not needed
    stream: int = 0

    def shift(self, n: int) -> Key:
        """The same key, `n` streams further."""
        return self._replace(stream=self.stream + n)


def seed_tensor(seed: int | Tensor, index: Tensor, stream: int) -> Tensor:
    """Check a key's three parts and return its seed as a 0-d int64 tensor on `index`'s device.

    Raises:
        InputError: a part of the wrong type, shape, range or device.
    """
    if index.dtype != torch.int64 or index.dim() != 1:
        raise InputError(
            expected="index as an int64 tensor of shape (B,)",
            got=f"{index.dtype} of shape {tuple(index.shape)}",
            fix="pass the sample numbers, for example torch.arange(B)",
        )
    if not 0 <= stream < 2**32:
        raise InputError(
            expected="stream in [0, 2^32)", got=stream, fix="choose a smaller stream number"
        )
    if type(seed) is not int and isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.dim() != 0 or seed.device != index.device:
            raise InputError(
                expected=f"seed as an int or a 0-d int64 tensor on {index.device}",
                got=f"{seed.dtype} of shape {tuple(seed.shape)} on {seed.device}",
                fix="pass an int",
            )
        return seed
    if not -(2**63) <= seed < 2**63:
        raise InputError(
            expected="seed in [-2^63, 2^63)", got=seed, fix="choose a seed that fits int64"
        )
    if type(index) is Tensor and index.is_cpu:
        return _on_cpu(seed)
    return torch.full((), seed, dtype=torch.int64, device=index.device)


def check_indexed(shape: Sequence[int], index: Tensor) -> None:
    """Raise InputError unless `index` numbers the samples of `shape`, none of them too large."""
    check_tensor("index", index, "pass the sample numbers, for example torch.arange(B)")
    if len(shape) == 0 or shape[0] != index.shape[0]:
        raise InputError(
            expected=f"a shape whose first size is len(index) = {index.shape[0]}",
            got=tuple(shape),
            fix="give every sample of the batch its index",
        )
    if math.prod(shape[1:]) > MOST_ELEMENTS:
        raise InputError(
            expected="at most 2^34 elements in a sample", got=tuple(shape), fix="use more samples"
        )


@kept
def _on_cpu(seed: int) -> Tensor:
    """A run draws under one seed again and again."""
    return torch.full((), seed, dtype=torch.int64, device="cpu")
