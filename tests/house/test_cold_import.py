"""Importing the package loads torch and nothing else that is heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sidfast

HEAVY = (
    "triton",
    "pydantic",
    "matplotlib",
    "sklearn",
    "scipy",
    "safetensors",
    "rich",
    "yaml",
    "PIL",
    "torchmetrics",
    "torch._dynamo",
    "torch._inductor",
    "sidfast.base._cpu",
)

PROGRAM = """
import sys
import torch
before = set(sys.modules)
import {module}
new = set(sys.modules) - before
print([name for name in {heavy!r} if name in new])
print(torch.cuda.is_initialized())
"""


def test_version_is_the_packages() -> None:
    project = Path(sidfast.__file__).parents[1] / "pyproject.toml"
    assert f'version = "{sidfast.__version__}"' in project.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "module",
    ["sidfast", "sidfast.ops", "sidfast.losses", "sidfast.steps", "sidfast.distillation"],
)
def test_import_is_light(module: str) -> None:
    program = PROGRAM.format(module=module, heavy=HEAVY)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["[]", "False"]
