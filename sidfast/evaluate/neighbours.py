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

CHANCE_Z = 3.09  # one-sided 99.9 % of a normal
COPY_QUANTILE = 0.05
COPIES_TOLERATED = 0.05
DUPLICATES_TOLERATED = 0.01


@dataclass(frozen=True)
class Neighbours:
    """What the samples' nearest real images say.

    Attributes:
        nearer_to_train: share of samples nearer to training than to held-out images, for equal
            numbers of each: .5 where chance decides, 1 where every sample is a copy. It shows any
            lean towards what was trained on, and all learning from finite data leans: a diffusion
            model of the digits, at its lowest held-out loss, reads .58 without copying.
        chance: the range of nearer_to_train over random splits of the same images, one in a
            thousand falling beyond either end.
        copies: share of samples that are training images but for small changes: closer to one
            than 95 % of held-out images come, less what held-out images draw by chance, size for
            size. Unbiased, so it may come out slightly negative. Pure noise of .1 per pixel on
            top of a digit leaves it a copy; the model above reads .01.
        copies_by_chance: copies stays below this in 999 of 1,000 random splits.
        duplicates: share of samples equal, to the last bit, to a training image.
        variety: among as many samples as there are held-out images, different nearest real images
            per sample: about .9 for real digits, small where few images come again and again.
    """

    nearer_to_train: float
    chance: tuple[float, float]
    copies: float
    copies_by_chance: float
    duplicates: float
    variety: float

    @property
    def memorised(self) -> bool:
        """Over 5 % copies, and more than chance explains; or over 1 % exact duplicates."""
        copied = self.copies > max(COPIES_TOLERATED, self.copies_by_chance)
        return copied or self.duplicates > DUPLICATES_TOLERATED


def nearest_neighbours(
    samples: Tensor, train: Tensor, heldout: Tensor, *, samples_are_heldout: bool = False
) -> Neighbours:
    """Run the tests.

    The sets differ in size, so held-out images count for more. With n training and m held-out
    images, q the share of samples nearest to a training image:

        nearer_to_train = (q / n) / (q / n + (1 - q) / m)
        copies          = close training hits - (n / m) * close held-out hits, per sample

    Drawing m of the n training images instead would hide most copies, whose originals would
    seldom be drawn: a pure copier would read .6. What chance gives is exact in mean and variance:
    with labels shuffled, the held-out images' hits are a simple random sample, without
    replacement, of all images' hits.

    Args:
        samples: (N, ...) pixels or features, N >= m.
        train, heldout: (n, ...) and (m, ...) likewise.
        samples_are_heldout: test the held-out images themselves, each against all others: what
            the tests say of real images.
    """
    samples, train, heldout = (x.detach().to("cpu").flatten(1) for x in (samples, train, heldout))
    n, m, total = len(train), len(heldout), len(samples)
    real = torch.cat([train, heldout])
    nearest = _nearest(samples, real, own=n if samples_are_heldout else None)
    distance = (samples - real[nearest]).norm(dim=1)
    radius = (heldout - train[_nearest(heldout, train)]).norm(dim=1).quantile(COPY_QUANTILE)
    hits = nearest.bincount(minlength=n + m).double()
    close = nearest[distance < radius].bincount(minlength=n + m).double()
    others = m - samples_are_heldout

    def matched(heldout_hits: float) -> float:
        q = 1 - min(max(heldout_hits / total, 0.0), 1.0)
        return (q / n) / (q / n + (1 - q) / others)

    expected, spread = total * m / (n + m), _spread(hits, m)
    duplicate = (distance == 0) & (nearest < n)
    return Neighbours(
        nearer_to_train=matched(hits[n:].sum().item()),
        chance=(matched(expected + CHANCE_Z * spread), matched(expected - CHANCE_Z * spread)),
        copies=(close[:n].sum() - n / others * close[n:].sum()).item() / total,
        copies_by_chance=CHANCE_Z * (n + m) / m * _spread(close, m) / total,
        duplicates=duplicate.double().mean().item(),
        variety=_expected_distinct(hits, m) / m,
    )


def _spread(hits: Tensor, chosen: int) -> float:
    """Standard deviation of the hits that fall to a random choice of so many of the images."""
    return math.sqrt(chosen * (1 - chosen / len(hits)) * hits.var().item())


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
