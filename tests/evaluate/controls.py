"""Generators whose faults are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Fake:
    """A sampler that is a function of n and a seeded torch generator."""

    draw: Callable[[int, torch.Generator], Tensor]
    network_calls: int = 1

    def sample(self, n: int, seed: int = 0, labels: Tensor | None = None) -> Tensor:
        return self.draw(n, torch.Generator().manual_seed(seed))


def copies_of(images: Tensor, noise: float = 0.0) -> Fake:
    """Draws images of the given set, with a little noise."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        chosen = images[torch.randint(len(images), (n,), generator=generator)]
        return chosen + noise * torch.randn(chosen.shape, generator=generator)

    return Fake(draw)


def mixtures_of(images: Tensor) -> Fake:
    """Draws points between neighbours of the given set: new digits of the same kind."""
    distances = torch.cdist(images.flatten(1), images.flatten(1))
    neighbours = distances.fill_diagonal_(torch.inf).topk(6, largest=False).indices

    def draw(n: int, generator: torch.Generator) -> Tensor:
        one = torch.randint(len(images), (n,), generator=generator)
        other = neighbours[one, torch.randint(6, (n,), generator=generator)]
        weight = torch.rand(n, 1, 1, 1, generator=generator)
        return images[one].lerp(images[other], weight)

    return Fake(draw)
