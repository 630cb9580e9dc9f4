"""Frechet distance against closed forms, scipy and torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.evaluate import (
    GaussianStats,
    eight_bit,
    frechet_distance,
    gaussian_stats,
    pixel_frechet,
    pixel_stats,
)


def random_stats(seed: int, dim: int = 20, rank: int = 20) -> GaussianStats:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(dim, rank, generator=generator, dtype=torch.float64)
    return GaussianStats(torch.randn(dim, generator=generator, dtype=torch.float64), root @ root.T)


def test_commuting_gaussians_have_a_closed_form() -> None:
    a = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    b = torch.tensor([4.0, 4.0, 0.0], dtype=torch.float64)
    mean = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    got = frechet_distance(GaussianStats(mean, a.diag()), GaussianStats(0 * mean, b.diag()))
    assert got == pytest.approx(5 + ((a.sqrt() - b.sqrt()) ** 2).sum().item())


def test_against_scipy() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = random_stats(0), random_stats(1)
    root = linalg.sqrtm(a.cov.numpy() @ b.cov.numpy()).real
    expected = (a.mean - b.mean).square().sum() + (a.cov + b.cov).trace() - 2 * root.trace()
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-10)


def test_against_torchmetrics(train: Tensor, heldout: Tensor) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Pixels(nn.Flatten):
        num_features = 64

    metric = fid.FrechetInceptionDistance(
        Pixels(), normalize=False, input_img_size=(1, 8, 8)
    ).set_dtype(torch.float64)
    metric.update(train.double(), real=True)
    metric.update(heldout.double(), real=False)
    ours = frechet_distance(gaussian_stats(train.flatten(1)), gaussian_stats(heldout.flatten(1)))
    assert ours == pytest.approx(metric.compute().item(), rel=1e-6)


@pytest.mark.parametrize("rank", [20, 3])
def test_distance_axioms(rank: int) -> None:
    a, b = random_stats(0, rank=rank), random_stats(1, rank=rank)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, b) > 0


def test_statistics_survive_a_large_offset() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(gaussian_stats(x + 1e6).cov, torch.cov(x.T), rtol=1e-8, atol=1e-8)


def test_pixels_are_clamped_and_rounded(train: Tensor) -> None:
    reference = pixel_stats(train)
    assert pixel_frechet(train, reference) == pytest.approx(0, abs=1e-6)
    assert pixel_frechet(train * 3, reference) == pixel_frechet((train * 3).clamp(-1, 1), reference)
    levels = (eight_bit(torch.linspace(-1.2, 1.2, 5000)) + 1) * 127.5
    torch.testing.assert_close(levels.unique(), torch.arange(256.0), rtol=0, atol=1e-4)


def test_real_split(train: Tensor, heldout: Tensor) -> None:
    assert pixel_frechet(heldout, pixel_stats(train)) == pytest.approx(0.537, abs=0.002)


def test_half_precision_and_gradients_are_taken_as_they_come(train: Tensor) -> None:
    images = train.half().requires_grad_()
    assert pixel_frechet(images, pixel_stats(train)) < 1e-4


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 1, 8, 8), "at least 2 images, got 1"),
        (torch.zeros(5, 64), r"shape \(5, 64\)"),
        (torch.zeros(5, 1, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.full((5, 1, 8, 8), torch.nan), "NaN or Inf in 5 of 5"),
        (torch.zeros(5, 3, 8, 8), "images of 64 values"),
    ],
)
def test_bad_images(images: Tensor, message: str, train: Tensor) -> None:
    with pytest.raises(InputError, match=message):
        pixel_frechet(images, pixel_stats(train))


def test_bad_vectors() -> None:
    with pytest.raises(InputError, match=r"\(N, D\) vectors"):
        gaussian_stats(torch.zeros(4))
