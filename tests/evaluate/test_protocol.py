"""The whole protocol on generators whose faults are known, and on a denoiser in closed form."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
import torch
from controls import Fake, copies_of, mixtures_of
from torch import Tensor

from sidfast.base.errors import InputError
from sidfast.data import digits
from sidfast.evaluate import (
    Quality,
    Report,
    TeacherSampler,
    Yardstick,
    evaluate,
    measure,
    sampling_speed,
)

N = 2000


@pytest.fixture(scope="module")
def good(train: Tensor, heldout: Tensor) -> Fake:
    return mixtures_of(torch.cat([train, heldout]))


@pytest.fixture(scope="module")
def real(yardstick: Yardstick) -> Quality:
    return yardstick.real_split()


def warnings(sampler: Fake, yardstick: Yardstick, real: Quality) -> str:
    quality = measure(sampler, yardstick, n=N)
    return "\n".join(Report(quality, real, real, yardstick.class_shares, seed=0).warnings)


class ShrinkingDenoiser:
    """E[x0 | x] for data N(mean, spread^2 I): its samples are known in closed form."""

    img_channels, img_resolution, spread = 1, 8, 0.3

    def __init__(self, label_dim: int = 0) -> None:
        self.label_dim = label_dim
        self.calls = 0
        self.seen: list[Tensor | None] = []

    def __call__(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        self.calls += 1
        self.seen.append(class_labels)
        mean = 0.0 if class_labels is None else class_labels.argmax(1).view(-1, 1, 1, 1) * 0.05
        keep = (self.spread**2 / (self.spread**2 + sigma**2)).view(-1, 1, 1, 1)
        return mean + keep * (x - mean)


def test_good_generator_and_real_split_raise_no_warning(
    good: Fake, train: Tensor, heldout: Tensor
) -> None:
    report = evaluate(good, Fake(good.draw, network_calls=35), train, heldout, n=N)
    assert report.warnings == []
    assert report.frechet_ratio == pytest.approx(1)
    assert report.generator.frechet_pixels < report.real.frechet_pixels
    assert report.real.images == 297
    assert report.teacher.network_calls == 35 and report.real.network_calls is None
    assert report.generator.images_per_second > 0


def test_copying_is_flagged(train: Tensor, yardstick: Yardstick, real: Quality) -> None:
    said = warnings(copies_of(train, 0.02), yardstick, real)
    assert "generator: memorisation" in said and "collapse" not in said


def test_one_image_is_flagged(train: Tensor, yardstick: Yardstick, real: Quality) -> None:
    said = warnings(copies_of(train[:1], 0.02), yardstick, real)
    assert "cover 0%" in said and "different nearest" in said and "class" in said


def test_one_class_is_flagged(train: Tensor, yardstick: Yardstick, real: Quality) -> None:
    threes = train[digits("train")[1] == 3]
    said = warnings(mixtures_of(threes), yardstick, real)
    assert "class 0, 1, 2, 4, 5, 6, 7, 8, 9" in said and "real images" in said


def test_missing_class_is_flagged(
    train: Tensor, heldout: Tensor, yardstick: Yardstick, real: Quality
) -> None:
    labels = torch.cat([digits("train")[1], digits("heldout")[1]])
    said = warnings(mixtures_of(torch.cat([train, heldout])[labels != 3]), yardstick, real)
    assert said.splitlines() == [
        "generator: collapse: too few samples of class 3, under a quarter of the real share"
    ]


def test_a_hundred_images_are_flagged(
    train: Tensor, heldout: Tensor, yardstick: Yardstick, real: Quality
) -> None:
    few = torch.cat([train, heldout])[::18]
    assert "different nearest" in warnings(copies_of(few, 0.05), yardstick, real)


def test_a_measured_teacher_need_not_be_drawn_again(
    good: Fake, train: Tensor, heldout: Tensor, yardstick: Yardstick
) -> None:
    teacher = measure(Fake(good.draw, network_calls=35), yardstick, n=300)
    report = evaluate(good, teacher, train, heldout, n=300)
    assert report.teacher is teacher
    assert sampling_speed(good, n=50) > 0


def test_report_forms(yardstick: Yardstick, real: Quality, train: Tensor, good: Fake) -> None:
    from rich.console import Console

    quality = measure(good, yardstick, n=N)
    copier = measure(copies_of(train), yardstick, n=N)
    report = Report(copier, quality, real, yardstick.class_shares, seed=0)
    record = json.loads(json.dumps(report.as_dict()))
    assert Report.from_dict(record) == report
    assert record["warnings"] == report.warnings and len(report.warnings) == 1
    console = Console(width=220, record=True, file=io.StringIO())
    console.print(report.table())
    for text in (console.export_text(), report.markdown()):
        assert "generator / teacher" in text and "real split (297)" in text
        assert f"{quality.frechet_pixels:.3f}" in text and "memorisation" in text


def test_teacher_sampler_solves_the_ode() -> None:
    net = ShrinkingDenoiser()
    sampler = TeacherSampler(net, num_steps=100, batch=1000)
    images = sampler.sample(2000, seed=1)
    assert net.calls == 2 * sampler.network_calls == 398
    assert images.std().item() == pytest.approx(net.spread, rel=0.01)


def test_teacher_samples_do_not_depend_on_the_batch() -> None:
    whole = TeacherSampler(ShrinkingDenoiser(10), batch=64).sample(50, seed=3)
    parts = TeacherSampler(ShrinkingDenoiser(10), batch=7).sample(50, seed=3)
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-6)
    assert not torch.equal(whole, TeacherSampler(ShrinkingDenoiser(10)).sample(50, seed=4))


def test_labels() -> None:
    net = ShrinkingDenoiser(10)
    TeacherSampler(net, batch=5000).sample(5000)
    drawn = net.seen[0]
    assert drawn is not None and drawn.shape == (5000, 10)
    assert (drawn.mean(0) - 0.1).abs().max() < 0.02
    fours = TeacherSampler(net).sample(200, labels=torch.full((200,), 4))
    assert fours.mean().item() == pytest.approx(0.2, abs=0.02)


def test_nonfinite_samples(yardstick: Yardstick) -> None:
    broken = Fake(lambda n, _: torch.full((n, 1, 8, 8), torch.nan))
    with pytest.raises(InputError, match="finite samples, got NaN or Inf in 400 of 400"):
        measure(broken, yardstick, n=400)


@pytest.mark.parametrize(
    ("draw", "n", "message"),
    [
        (lambda n, _: torch.zeros(n, 3, 8, 8), 400, r"samples of shape \(N, 1, 8, 8\)"),
        (lambda n, _: torch.zeros(n, 1, 8, 8), 100, "at least 297 samples, got 100"),
        (lambda n, _: torch.zeros(n // 2, 1, 8, 8), 400, "400 images"),
        (lambda n, _: torch.zeros(n, 1, 8, 8), 0, "n >= 1"),
    ],
)
def test_bad_samples(draw: object, n: int, message: str, yardstick: Yardstick) -> None:
    with pytest.raises(InputError, match=message):
        measure(SimpleNamespace(sample=lambda n, seed: draw(n, None)), yardstick, n=n)


def test_bad_references(train: Tensor, heldout: Tensor, good: Fake) -> None:
    with pytest.raises(InputError, match="at least 8 held-out images"):
        evaluate(good, good, train, heldout[:3], n=400)
    with pytest.raises(InputError, match=r"held-out images of shape \(N, 1, 8, 8\)"):
        evaluate(good, good, train, heldout[:, :, :4], n=400)
    large = torch.zeros(20, 3, 32, 32)
    with pytest.raises(InputError, match="feature_net made for images of this size"):
        evaluate(good, good, large, large, n=400)
