"""Gradient accumulation, the same for both updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from sidfast.steps.draws import Draws


def accumulate(
    rounds: Iterable[Draws], loss_of: Callable[[Draws], Tensor], scale: float
) -> Tensor:
    """Back-propagate scale * sum(loss) round by round into `.grad`.

    Returns:
        The sum of all per-sample losses, unscaled, 0-d on the device.
    """
    sums = []
    for draws in rounds:
        loss = loss_of(draws).sum()
        (loss * scale).backward()
        sums.append(loss.detach())
    return torch.stack(sums).sum()
