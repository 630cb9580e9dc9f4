"""Distillation: config, the step-by-step `Distiller`, and the loop around it."""

from __future__ import annotations

from sidfast.distillation.config import DistillConfig
from sidfast.distillation.distiller import Distiller
from sidfast.distillation.generator import Generator, load_generator
from sidfast.distillation.loop import DistillResult, distill

__all__ = [
    "DistillConfig",
    "DistillResult",
    "Distiller",
    "Generator",
    "distill",
    "load_generator",
]
