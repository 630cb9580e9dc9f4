"""Improved precision and recall (Kynkaanniemi et al., arXiv 1904.06991)."""

from __future__ import annotations

import torch
from torch import Tensor

from sidfast.evaluate.subsets import subsets

NEIGHBOURS = 3


def share_inside(points: Tensor, manifold: Tensor, k: int = NEIGHBOURS) -> float:
    """Share of points (M, D) inside the manifold of (N, D) vectors.

    The manifold is the union of balls around its vectors, each reaching to the vector's k-th
    nearest neighbour among the others.
    """
    radii = torch.cdist(manifold, manifold).kthvalue(k + 1).values
    return (torch.cdist(points, manifold) <= radii).any(1).double().mean().item()


def precision_recall(
    samples: Tensor, references: Tensor, *, size: int, draws: int = 20, seed: int = 0
) -> tuple[float, float]:
    """Precision (samples that look real) and recall (real images that the samples cover).

    Both depend on how many vectors span the manifolds, so `size` of each set are drawn, `draws`
    times over, and the results averaged: values for one `size` can be compared.

    Args:
        samples, references: features, (M, D) and (N, D), both M and N >= size > k.
    """
    samples, references = (x.detach().to("cpu", torch.float64) for x in (samples, references))
    pairs = zip(
        subsets(len(samples), size, draws, seed, stream=2),
        subsets(len(references), size, draws, seed, stream=3),
        strict=True,
    )
    shares = [
        (share_inside(samples[i], references[j]), share_inside(references[j], samples[i]))
        for i, j in pairs
    ]
    precision, recall = (sum(values) / draws for values in zip(*shares, strict=True))
    return precision, recall
