"""KID: the estimator against its definition, unbiasedness, reproducibility."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sidfast.evaluate import DigitsClassifier, kernel_distance
from sidfast.evaluate.kid import polynomial_mmd2
from sidfast.evaluate.subsets import subsets


def features(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_estimator_is_its_definition() -> None:
    x, y = features(0, 5, 3), features(1, 4, 3)

    def k(a: Tensor, b: Tensor) -> Tensor:
        return (a.dot(b) / 3 + 1) ** 3

    within_x = [k(x[i], x[j]) for i in range(5) for j in range(5) if i != j]
    within_y = [k(y[i], y[j]) for i in range(4) for j in range(4) if i != j]
    across = [k(a, b) for a in x for b in y]
    expected = sum(within_x) / 20 + sum(within_y) / 12 - 2 * sum(across) / 20
    torch.testing.assert_close(polynomial_mmd2(x, y), expected)


def test_against_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = features(0, 50, 8), features(1, 50, 8) + 0.3
    torch.testing.assert_close(polynomial_mmd2(x, y), kid.poly_mmd(x, y), rtol=1e-9, atol=1e-12)


def test_unbiased_at_any_size() -> None:
    for size in (3, 30):
        values = polynomial_mmd2(features(0, 4000, size, 4), features(1, 4000, size, 4))
        assert values.mean().abs() < 4 * values.std() / 4000**0.5


def test_real_images_are_at_no_distance_and_noise_is(
    train: Tensor, heldout: Tensor, net: DigitsClassifier
) -> None:
    held = net.features(heldout)
    mean, std = kernel_distance(net.features(train), held)
    assert abs(mean) < std
    noisy, _ = kernel_distance(net.features(train + 0.5 * features(0, *train.shape).float()), held)
    assert noisy > 10 * std


def test_keyed() -> None:
    x, y = features(0, 60, 4), features(1, 40, 4)
    assert kernel_distance(x, y, seed=3) == kernel_distance(x, y, seed=3)
    assert kernel_distance(x, y, seed=3) != kernel_distance(x, y, seed=4)


def test_subsets_do_not_repeat() -> None:
    chosen = subsets(50, 20, 7, seed=1)
    assert chosen.shape == (7, 20)
    assert all(row.unique().numel() == 20 for row in chosen)
    assert int(chosen.min()) >= 0 and int(chosen.max()) < 50
    assert not torch.equal(chosen, subsets(50, 20, 7, seed=1, stream=1))
