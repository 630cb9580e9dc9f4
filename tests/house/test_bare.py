"""Where torch is all there is, operators, networks, weights and the steps of a run work."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
for name in ("pydantic", "yaml", "rich", "tqdm", "safetensors", "matplotlib", "PIL", "sklearn",
             "scipy", "torchmetrics"):
    sys.modules[name] = None
import torch
import sidfast
from sidfast import Distiller, evaluate, losses, networks, ops, optim, recipes, steps, teachers
distiller = Distiller(teachers.digits(), recipes.digits(batch=4, kimg=0.1))
print(distiller.step()["skipped"].item(), tuple(distiller.sample(2).shape))
try:
    sidfast.DistillConfig.parse({"batch": 4})
except ImportError as error:
    print(error)
"""


def test_without_the_other_packages() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == "0 (2, 1, 8, 8)"
    assert "pydantic" in run.stdout.splitlines()[1]
