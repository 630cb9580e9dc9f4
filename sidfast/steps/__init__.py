"""The two updates of Score identity Distillation and everything they draw."""

from __future__ import annotations

from sidfast.steps.config import StepConfig
from sidfast.steps.draws import Draws, KeyedDraws, RecordedDraws
from sidfast.steps.fake_score import fake_score_loss, fake_score_update
from sidfast.steps.generator import generate, generator_loss, generator_update
from sidfast.steps.networks import Networks, frozen_view

__all__ = [
    "Draws",
    "KeyedDraws",
    "Networks",
    "RecordedDraws",
    "StepConfig",
    "fake_score_loss",
    "fake_score_update",
    "frozen_view",
    "generate",
    "generator_loss",
    "generator_update",
]
