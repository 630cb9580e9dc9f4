"""Frechet distance between two sets, each taken for a Gaussian (Heusel et al., arXiv 1706.08500).

With Inception features this is FID; here it is measured on raw pixels and on a classifier's
features. Written out rather than taken from torchmetrics, whose metric probes the feature network
with a 299x299 RGB image, sums uncentred second moments, and cannot reuse reference statistics
along a training curve; the tests compare the two.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sidfast.base.errors import InputError
from sidfast.evaluate.checks import check_images, eight_bit


class GaussianStats(NamedTuple):
    """Mean (D,) and unbiased covariance (D, D) of a set of vectors, float64 on the CPU."""

    mean: Tensor
    cov: Tensor


def gaussian_stats(vectors: Tensor) -> GaussianStats:
    """Mean and covariance of (N, D) vectors, N >= 2, of any float dtype, on any device.

    Raises:
        InputError: not two-dimensional, or fewer than two vectors.
    """
    if vectors.ndim != 2 or len(vectors) < 2:
        raise InputError(
            expected="(N, D) vectors with N >= 2",
            got=f"shape {tuple(vectors.shape)}",
            fix="flatten images to (N, C*H*W)",
        )
    vectors = vectors.detach().to("cpu", torch.float64)
    mean = vectors.mean(0)
    centred = vectors - mean
    return GaussianStats(mean, centred.T @ centred / (len(vectors) - 1))


def frechet_distance(a: GaussianStats, b: GaussianStats) -> float:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)); symmetric, >= 0.

    The root's trace is that of (R cov_b R)^(1/2) with R = cov_a^(1/2): symmetric positive
    semi-definite, so singular covariances (pixels that never change) need no special care.
    """
    values, vectors = torch.linalg.eigh(a.cov)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    middle = root @ b.cov @ root
    cross = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp_min(0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return max(distance.item(), 0.0)


def pixel_stats(images: Tensor) -> GaussianStats:
    """Statistics of (N, C, H, W) images in [-1, 1] after 8-bit rounding, D = C*H*W.

    Raises:
        InputError: not images, fewer than two, or non-finite values among them.
    """
    check_images(images, "images", at_least=2)
    return gaussian_stats(eight_bit(images).flatten(1))


def pixel_frechet(images: Tensor, reference: GaussianStats) -> float:
    """Frechet distance of images to `pixel_stats` of the references: the progress curve's metric.

    A few milliseconds for some thousand 8x8 images. Small samples read too high (the covariance
    is noisy), so compare only values from equally many images.

    Raises:
        InputError: as `pixel_stats`, or another number of pixels than the references'.
    """
    stats = pixel_stats(images)
    if stats.mean.shape != reference.mean.shape:
        raise InputError(
            expected=f"images of {len(reference.mean)} values, as the references",
            got=f"shape {tuple(images.shape)}",
            fix="compare images of one size and channel count",
        )
    return frechet_distance(stats, reference)
