"""Score identity Distillation (SiD, arXiv 2404.04057): pretrained diffusion model in, one-step generator out.

Importing this package loads torch and nothing else that is heavy; each public name
brings what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "distill": "sidfast.distillation",
    "Distiller": "sidfast.distillation",
    "DistillConfig": "sidfast.distillation",
    "DistillResult": "sidfast.distillation",
    "load_generator": "sidfast.distillation",
    "load_teacher": "sidfast.teachers",
    "info": "sidfast.environment",
}
_ROOMS = ("diffusion", "evaluate", "losses", "networks", "ops", "optim", "recipes", "teachers")

__all__ = [*_HOME, *_ROOMS, "__version__"]

if TYPE_CHECKING:
    from sidfast import diffusion, evaluate, losses, networks, ops, optim, recipes, teachers
    from sidfast.distillation import DistillConfig, Distiller, DistillResult, distill, load_generator
    from sidfast.environment import info
    from sidfast.teachers import load_teacher


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"sidfast.{name}")
    raise AttributeError(f"module 'sidfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
