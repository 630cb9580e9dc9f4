"""The protocol: generator and teacher under equal conditions, real images as the floor.

Small samples flatter, and copies of the training images would score best, so: as many samples of
each (10,000), clamped and rounded to 8 bits, against the same references, with a memorisation test
beside every distance and a real-against-real row to read them by.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor

from sidfast.base.errors import InputError
from sidfast.evaluate.features import FeatureNet, digits_classifier
from sidfast.evaluate.quality import Quality, Yardstick
from sidfast.evaluate.report import Report
from sidfast.evaluate.samplers import Sampler


def evaluate(
    generator: Sampler,
    teacher: Sampler | Quality,
    references: Tensor,
    heldout: Tensor,
    feature_net: FeatureNet | None = None,
    *,
    n: int = 10_000,
    seed: int = 0,
) -> Report:
    """Measure a generator beside its teacher.

    Args:
        generator: drawn from with ``generator.sample(n, seed=seed)``; conditional networks draw
            their labels uniformly.
        teacher: likewise (`TeacherSampler` wraps a denoiser), or what `measure` returned for it
            before: its samples depend on the seed alone and take 35 network calls each.
        references: (N, C, H, W) in [-1, 1], the images that the teacher was trained on.
        heldout: (M, C, H, W), of the same origin, that nothing was trained on.
        feature_net: None: the shipped classifier of 8x8 digits.
        n: samples of each, at least M.
        seed: of the samples and of the subsets that KID, precision and recall average over.

    Raises:
        InputError: images of wrong shapes, too few, or with NaN or Inf in them.
    """
    yardstick = Yardstick(references, heldout, feature_net or digits_classifier(), seed=seed)
    if not isinstance(teacher, Quality):
        teacher = measure(teacher, yardstick, n=n, seed=seed)
    return Report(
        generator=measure(generator, yardstick, n=n, seed=seed),
        teacher=teacher,
        real=yardstick.real_split(),
        reference_class_shares=yardstick.class_shares,
        seed=seed,
    )


def measure(sampler: Sampler, yardstick: Yardstick, *, n: int = 10_000, seed: int = 0) -> Quality:
    """Draw n samples, time that, and measure them.

    Raises:
        InputError: the sampler returned another number of images, another size, or NaN.
    """
    samples, seconds = _draw(sampler, n, seed)
    return replace(
        yardstick.measure(samples),
        network_calls=getattr(sampler, "network_calls", 1),
        images_per_second=n / seconds,
    )


def sampling_speed(sampler: Sampler, *, n: int = 500, seed: int = 0) -> float:
    """Images per second: what brings a stored `Quality` up to date on another machine."""
    return n / _draw(sampler, n, seed)[1]


@torch.no_grad()
def _draw(sampler: Sampler, n: int, seed: int) -> tuple[Tensor, float]:
    """n samples and the seconds they took, after a first small draw that is not timed."""
    if n < 1:
        raise InputError(expected="n >= 1 samples", got=n, fix="the protocol's n is 10,000")
    sampler.sample(min(n, 8), seed=seed)
    start = time.perf_counter()
    samples = sampler.sample(n, seed=seed)
    if samples.is_cuda:
        torch.cuda.synchronize(samples.device)
    seconds = time.perf_counter() - start
    if len(samples) != n:
        raise InputError(
            expected=f"{n} images from sample({n})", got=len(samples), fix="repair the sampler"
        )
    return samples, seconds
