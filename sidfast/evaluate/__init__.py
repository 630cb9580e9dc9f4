"""Measuring quality: distances to real images, diversity, memorisation, and the report.

    report = evaluate(generator, TeacherSampler(teacher), references, heldout)
    print(report.markdown())

`pixel_frechet` against `pixel_stats` of the references is the cheap curve for progress.
"""

from __future__ import annotations

from sidfast.evaluate.checks import eight_bit
from sidfast.evaluate.features import DigitsClassifier, FeatureNet, digits_classifier
from sidfast.evaluate.frechet import (
    GaussianStats,
    frechet_distance,
    gaussian_stats,
    pixel_frechet,
    pixel_stats,
)
from sidfast.evaluate.kid import kernel_distance
from sidfast.evaluate.neighbours import Neighbours, nearest_neighbours
from sidfast.evaluate.precision_recall import precision_recall
from sidfast.evaluate.protocol import evaluate, measure, sampling_speed
from sidfast.evaluate.quality import Quality, Yardstick
from sidfast.evaluate.report import Report
from sidfast.evaluate.samplers import Sampler, TeacherSampler

__all__ = [
    "DigitsClassifier",
    "FeatureNet",
    "GaussianStats",
    "Neighbours",
    "Quality",
    "Report",
    "Sampler",
    "TeacherSampler",
    "Yardstick",
    "digits_classifier",
    "eight_bit",
    "evaluate",
    "frechet_distance",
    "gaussian_stats",
    "kernel_distance",
    "measure",
    "nearest_neighbours",
    "pixel_frechet",
    "pixel_stats",
    "precision_recall",
    "sampling_speed",
]
