"""Does a generator repeat its training images? A test by nearest neighbours.

Training and held-out images are exchangeable: a random split of one set. A sampler that has learnt
the distribution, not the images, is as likely to land next to one as next to the other. So count,
for every sample, which set its nearest real image is in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NULL_Z = 3.09  # one-sided 99.9 % of a normal
DUPLICATES_TOLERATED = 0.001


@dataclass(frozen=True)
class Memorisation:
    """Outcome of the test.

    Attributes:
        nearer_to_train: share of samples nearer to training than to held-out images, for equal
            numbers of each: .5 where nothing is memorised, 1 where every sample is a copy. A
            sampler that copies a quarter of the time reads .58, half of the time .69.
        null: the range that random splits of the same images give, one in a thousand falling
            beyond either end. It widens when few real images attract many samples.
        duplicates: share of samples equal, to the last bit, to a training image.
    """

    nearer_to_train: float
    null: tuple[float, float]
    duplicates: float

    @property
    def flagged(self) -> bool:
        """Nearer to training images than chance explains, or over .1 % of exact duplicates."""
        return self.nearer_to_train > self.null[1] or self.duplicates > DUPLICATES_TOLERATED


def memorisation(
    samples: Tensor, train: Tensor, heldout: Tensor, *, samples_are_heldout: bool = False
) -> Memorisation:
    """Test whether samples are drawn to the training images.

    The sets differ in size, so shares are per image: with a share q of samples nearest to one of
    n training images, and 1 - q to one of m held out, nearer_to_train = (q/n) / (q/n + (1-q)/m).
    Drawing m of the n training images instead would hide most copies, whose originals would
    seldom be drawn: a pure copier would read .6. The null is exact in mean and variance: with
    labels shuffled, the held-out images' hits are a simple random sample, without replacement, of
    all images' hits.

    Args:
        samples: (N, ...) pixels or features.
        train, heldout: (n, ...) and (m, ...) likewise.
        samples_are_heldout: test the held-out images themselves, each against all others: what
            the test says of real images.
    """
    samples, train, heldout = (x.detach().to("cpu").flatten(1) for x in (samples, train, heldout))
    real = torch.cat([train, heldout])
    nearest = _nearest(samples, real, own=len(train) if samples_are_heldout else None)
    hits = nearest.bincount(minlength=len(real)).double()

    n, m = len(train), len(heldout)
    share_of_heldout = m / (n + m)
    mean = len(samples) * share_of_heldout
    spread = math.sqrt(m * (1 - share_of_heldout) * hits.var().item())
    others = m - samples_are_heldout

    def matched(heldout_hits: float) -> float:
        q = 1 - min(max(heldout_hits / len(samples), 0.0), 1.0)
        return (q / n) / (q / n + (1 - q) / others)

    duplicate = (samples == real[nearest]).all(1) & (nearest < n)
    return Memorisation(
        nearer_to_train=matched(hits[n:].sum().item()),
        null=(matched(mean + NULL_Z * spread), matched(mean - NULL_Z * spread)),
        duplicates=duplicate.double().mean().item(),
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
