"""Kernel distance with an unbiased estimator (Binkowski et al., arXiv 1801.01401)."""

from __future__ import annotations

import torch
from torch import Tensor

from sidfast.evaluate.subsets import subsets

SUBSET_SIZE = 1000


def polynomial_mmd2(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased squared MMD of (..., M, D) and (..., N, D) under the kernel (x.y / D + 1)^3.

    Unlike the Frechet distance it is zero on average for sets of one distribution, whatever their
    sizes, and so may come out slightly negative.
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / a.shape[-1] + 1) ** 3

    def mean_of_pairs(a: Tensor) -> Tensor:
        k, n = kernel(a, a), a.shape[-2]
        return (k.sum((-2, -1)) - k.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))

    return mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean((-2, -1))


def kernel_distance(
    x: Tensor, y: Tensor, *, draws: int = 100, seed: int = 0
) -> tuple[float, float]:
    """KID between features (M, D) and (N, D): mean and standard deviation over random subsets.

    Every draw compares equally many of both, the smaller set's size but at most 1,000, in float64
    on the CPU. Written out because torchmetrics draws its subsets from torch's global generator.
    """
    x, y = (features.detach().to("cpu", torch.float64) for features in (x, y))
    size = min(len(x), len(y), SUBSET_SIZE)
    pairs = zip(
        subsets(len(x), size, draws, seed, stream=0),
        subsets(len(y), size, draws, seed, stream=1),
        strict=True,
    )
    values = torch.stack([polynomial_mmd2(x[i], y[j]) for i, j in pairs])
    return values.mean().item(), values.std().item()
