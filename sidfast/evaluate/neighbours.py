"""Nearest real neighbours: does a generator repeat its training images, or only a few images?

Training and held-out images are exchangeable: a random split of one set. A sampler that has learnt
the distribution, not the images, is as likely to land next to one as next to the other. So find,
for every sample, its nearest real image, and count the hits of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NULL_Z = 3.09  # one-sided 99.9 % of a normal
DUPLICATES_TOLERATED = 0.01


@dataclass(frozen=True)
class Neighbours:
    """What the samples' nearest real images say.

    Attributes:
        nearer_to_train: share of samples nearer to training than to held-out images, for equal
            numbers of each: .5 where nothing is memorised, 1 where every sample is a copy. A
            sampler that copies a quarter of the time reads .58, half of the time .69.
        null: the range that random splits of the same images give, one in a thousand falling
            beyond either end. It widens when few real images attract many samples.
        duplicates: share of samples equal, to the last bit, to a training image.
        variety: among as many samples as there are held-out images, different nearest real images
            per sample: about .9 for real digits, small where few images come again and again.
    """

    nearer_to_train: float
    null: tuple[float, float]
    duplicates: float
    variety: float

    @property
    def memorised(self) -> bool:
        """Nearer to training images than chance explains, or over 1 % of exact duplicates."""
        return self.nearer_to_train > self.null[1] or self.duplicates > DUPLICATES_TOLERATED


def nearest_neighbours(
    samples: Tensor, train: Tensor, heldout: Tensor, *, samples_are_heldout: bool = False
) -> Neighbours:
    """Run the tests.

    The sets differ in size, so shares are per image: with a share q of samples nearest to one of
    n training images, and 1 - q to one of m held out, nearer_to_train = (q/n) / (q/n + (1-q)/m).
    Drawing m of the n training images instead would hide most copies, whose originals would
    seldom be drawn: a pure copier would read .6. The null is exact in mean and variance: with
    labels shuffled, the held-out images' hits are a simple random sample, without replacement, of
    all images' hits.

    Args:
        samples: (N, ...) pixels or features, N >= m.
        train, heldout: (n, ...) and (m, ...) likewise.
        samples_are_heldout: test the held-out images themselves, each against all others: what
            the tests say of real images.
    """
    samples, train, heldout = (x.detach().to("cpu").flatten(1) for x in (samples, train, heldout))
    n, m = len(train), len(heldout)
    real = torch.cat([train, heldout])
    nearest = _nearest(samples, real, own=n if samples_are_heldout else None)
    hits = nearest.bincount(minlength=n + m).double()

    expected = len(samples) * m / (n + m)
    spread = math.sqrt(m * n / (n + m) * hits.var().item())
    others = m - samples_are_heldout

    def matched(heldout_hits: float) -> float:
        q = 1 - min(max(heldout_hits / len(samples), 0.0), 1.0)
        return (q / n) / (q / n + (1 - q) / others)

    duplicate = (samples == real[nearest]).all(1) & (nearest < n)
    return Neighbours(
        nearer_to_train=matched(hits[n:].sum().item()),
        null=(matched(expected + NULL_Z * spread), matched(expected - NULL_Z * spread)),
        duplicates=duplicate.double().mean().item(),
        variety=_expected_distinct(hits, m) / m,
    )


def _nearest(points: Tensor, real: Tensor, own: int | None = None) -> Tensor:
    """Index of each point's nearest real vector; point i may not choose real vector own + i."""
    nearest = []
    for start in range(0, len(points), 1024):
        distances = torch.cdist(points[start : start + 1024], real)
        if own is not None:
            rows = torch.arange(len(distances))
            distances[rows, own + start + rows] = math.inf
        nearest.append(distances.argmin(1))
    return torch.cat(nearest)


def _expected_distinct(hits: Tensor, draws: int) -> float:
    """Expected number of different images among `draws` of the hits, drawn without replacement."""
    total = hits.sum()
    missing = total - hits - draws
    log_missed = (
        torch.lgamma(total - hits + 1)
        - torch.lgamma(missing.clamp_min(0) + 1)
        + torch.lgamma(total - draws + 1)
        - torch.lgamma(total + 1)
    )
    met = 1 - log_missed.exp() * (missing >= 0)
    return met.sum().item()
