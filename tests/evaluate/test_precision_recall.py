"""Precision and recall against their definition and on sets with known answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sidfast.evaluate import precision_recall
from sidfast.evaluate.precision_recall import share_inside


def cloud(n: int, centre: float = 0.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator, dtype=torch.float64) + centre


def test_share_is_its_definition() -> None:
    points, manifold = cloud(40, 0.8, seed=1), cloud(30)
    inside = 0
    for point in points:
        for i, centre in enumerate(manifold):
            others = [(centre - x).norm() for j, x in enumerate(manifold) if j != i]
            if (point - centre).norm() <= sorted(others)[2]:
                inside += 1
                break
    assert share_inside(points, manifold) == inside / 40


def test_known_answers() -> None:
    everything = torch.cat([cloud(200), cloud(200, 50)])
    one_cluster = cloud(400, seed=1)
    assert precision_recall(everything, everything, size=400) == (1.0, 1.0)
    assert precision_recall(cloud(400), cloud(400, 50), size=400) == (0.0, 0.0)
    precision, recall = precision_recall(one_cluster, everything, size=400)
    assert precision > 0.8 and recall == pytest.approx(0.5, abs=0.1)
    precision, recall = precision_recall(everything, one_cluster, size=400)
    assert precision == pytest.approx(0.5, abs=0.1) and recall > 0.8


def test_sizes_are_matched() -> None:
    few = precision_recall(cloud(300, seed=1), cloud(300, seed=2), size=200)
    many = precision_recall(cloud(5000, seed=3), cloud(3000, seed=4), size=200)
    assert few == pytest.approx(many, abs=0.05)
