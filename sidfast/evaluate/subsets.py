"""Random subsets, keyed like everything else that is random."""

from __future__ import annotations

import torch
from torch import Tensor

from sidfast.diffusion import Stream
from sidfast.ops import uniform


def subsets(total: int, size: int, draws: int, seed: int, stream: int = 0) -> Tensor:
    """(draws, size) int64 indices below `total`, without repetition within a row.

    Equal arguments give equal subsets on every machine; `stream` separates uses of one seed.
    """
    if size == total:
        return torch.arange(total).expand(draws, total)
    order = uniform(
        (draws, total),
        seed=seed,
        index=torch.arange(draws),
        stream=Stream.EVALUATE_SUBSET + stream,
    )
    return order.argsort(dim=1, stable=True)[:, :size]
