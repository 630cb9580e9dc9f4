"""Memorisation and variety: what chance gives, power, false alarms."""

from __future__ import annotations

import pytest
import torch
from controls import copies_of, mixtures_of
from torch import Tensor

from sidfast.evaluate import eight_bit, nearest_neighbours

N = 4000


def nearest(points: Tensor, real: Tensor) -> Tensor:
    return torch.cdist(points.flatten(1), real.flatten(1)).argmin(1)


def test_share_and_chance_against_shuffled_splits(train: Tensor, heldout: Tensor) -> None:
    real = torch.cat([train, heldout])
    samples = mixtures_of(real).sample(N)
    outcome = nearest_neighbours(samples, train, heldout)

    hits = nearest(samples, real)
    distance = (samples - real[hits]).flatten(1).norm(dim=1)
    radius = torch.cdist(heldout.flatten(1), train.flatten(1)).amin(1).quantile(0.05)
    generator = torch.Generator().manual_seed(0)
    shares, copies = [], []
    for shuffle in range(2001):
        order = torch.arange(1797) if not shuffle else torch.randperm(1797, generator=generator)
        in_train = torch.zeros(1797).index_fill_(0, order[:1500], 1.0)[hits]
        q = in_train.mean().item()
        shares.append(q / 1500 / (q / 1500 + (1 - q) / 297))
        weight = in_train - (1 - in_train) * 1500 / 297
        copies.append((weight * (distance < radius)).mean().item())
    assert outcome.nearer_to_train == pytest.approx(shares[0], abs=1e-6)
    assert outcome.copies == pytest.approx(copies[0], abs=1e-6)
    by_chance, copies_by_chance = torch.tensor(shares[1:]), torch.tensor(copies[1:])
    assert by_chance.mean() == pytest.approx(0.5, abs=0.003)
    assert outcome.chance[0] == pytest.approx(by_chance.quantile(0.001).item(), abs=0.01)
    assert outcome.chance[1] == pytest.approx(by_chance.quantile(0.999).item(), abs=0.01)
    assert copies_by_chance.mean().abs() < 0.003
    assert outcome.copies_by_chance == pytest.approx(3.09 * copies_by_chance.std().item(), rel=0.06)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_copies_are_flagged(noise: float, train: Tensor, heldout: Tensor) -> None:
    samples = eight_bit(copies_of(train, noise).sample(N))
    outcome = nearest_neighbours(samples, eight_bit(train), eight_bit(heldout))
    assert outcome.memorised
    assert outcome.nearer_to_train > 0.99 and outcome.copies > 0.99
    assert outcome.duplicates == (noise == 0)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_part_copies_are_flagged_and_counted(share: float, train: Tensor, heldout: Tensor) -> None:
    far = copies_of(torch.cat([train, heldout]), 0.4).sample(N)
    copies = copies_of(train, 0.05).sample(int(N * share), seed=1)
    outcome = nearest_neighbours(torch.cat([copies, far[len(copies) :]]), train, heldout)
    assert outcome.memorised
    assert outcome.copies == pytest.approx(share, abs=0.01)


def test_blends_of_training_images_are_flagged(train: Tensor, heldout: Tensor) -> None:
    outcome = nearest_neighbours(mixtures_of(train).sample(N), train, heldout)
    assert outcome.memorised and outcome.nearer_to_train > 0.98


def test_few_exact_copies_are_flagged(train: Tensor, heldout: Tensor) -> None:
    fresh = mixtures_of(torch.cat([train, heldout])).sample(N)
    copies = train[: N // 50]
    outcome = nearest_neighbours(torch.cat([copies, fresh[len(copies) :]]), train, heldout)
    assert outcome.duplicates == pytest.approx(0.02, abs=0.003)
    assert outcome.memorised


def test_new_images_are_not_flagged(train: Tensor, heldout: Tensor) -> None:
    for seed in range(3):
        samples = mixtures_of(torch.cat([train, heldout])).sample(N, seed)
        assert not nearest_neighbours(samples, train, heldout).memorised


def test_real_images_are_not_flagged_however_they_are_split(train: Tensor, heldout: Tensor) -> None:
    outcome = nearest_neighbours(heldout, train, heldout, samples_are_heldout=True)
    assert not outcome.memorised and outcome.duplicates == 0
    assert outcome.variety == pytest.approx(0.92, abs=0.01)
    real = torch.cat([train, heldout])
    alarms = 0
    for seed in range(100):
        mixed = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))]
        alarms += nearest_neighbours(
            mixed[1500:], mixed[:1500], mixed[1500:], samples_are_heldout=True
        ).memorised
    assert alarms <= 2


def test_variety_is_the_mean_over_subsets(train: Tensor, heldout: Tensor) -> None:
    real = torch.cat([train, heldout])
    samples = copies_of(real[::18], 0.05).sample(1000)
    hits = nearest(samples, real)
    generator = torch.Generator().manual_seed(0)
    counts = [
        hits[torch.randperm(1000, generator=generator)[:297]].unique().numel() for _ in range(300)
    ]
    variety = nearest_neighbours(samples, train, heldout).variety
    assert variety == pytest.approx(sum(counts) / 300 / 297, abs=0.003)
    assert variety < 0.35
