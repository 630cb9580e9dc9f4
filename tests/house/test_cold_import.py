"""Importing the package loads torch and nothing else that is heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(
    "module",
    ["sidfast", "sidfast.ops", "sidfast.losses", "sidfast.steps", "sidfast.distillation"],
)
def test_import_is_light(module: str) -> None:
    program = PROGRAM.format(module=module, heavy=HEAVY)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["[]", "False"]
