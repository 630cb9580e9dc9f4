"""Score identity Distillation (SiD, arXiv 2404.04057): from diffusion model to one-step generator.

Importing this package loads torch and nothing else that is heavy; each public name
brings what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sidfast.base.version import __version__

_HOME = {
    "distill": ("sidfast.distillation", "distill"),
    "Distiller": ("sidfast.distillation", "Distiller"),
    "DistillConfig": ("sidfast.distillation", "DistillConfig"),
    "DistillResult": ("sidfast.distillation", "DistillResult"),
    "load_generator": ("sidfast.distillation", "load_generator"),
    "load_teacher": ("sidfast.teachers", "load"),
    "info": ("sidfast.environment", "info"),
}
_ROOMS = (
    "data",
    "diffusion",
    "evaluate",
    "losses",
    "networks",
    "ops",
    "optim",
    "recipes",
    "steps",
    "teachers",
)

__all__ = [
    "DistillConfig",
    "DistillResult",
    "Distiller",
    "__version__",
    "data",
    "diffusion",
    "distill",
    "evaluate",
    "info",
    "load_generator",
    "load_teacher",
    "losses",
    "networks",
    "ops",
    "optim",
    "recipes",
    "steps",
    "teachers",
]

if TYPE_CHECKING:
    from sidfast import (
        data,
        diffusion,
        evaluate,
        losses,
        networks,
        ops,
        optim,
        recipes,
        steps,
        teachers,
    )
    from sidfast.distillation import (
        DistillConfig,
        Distiller,
        DistillResult,
        distill,
        load_generator,
    )
    from sidfast.environment import info
    from sidfast.teachers import load as load_teacher


def __getattr__(name: str) -> Any:
    if name in _HOME:
        module, attribute = _HOME[name]
        return getattr(importlib.import_module(module), attribute)
    if name in _ROOMS:
        return importlib.import_module(f"sidfast.{name}")
    raise AttributeError(f"module 'sidfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
