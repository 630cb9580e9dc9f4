"""compute-sanitizer over every kernel of the CUDA library: `make gpu-sanitize`.

Usage: python benchmarks/gpu_sanitize.py [--tools memcheck,racecheck]

Looks for accesses outside of memory and for races between threads, in small calls of odd shapes;
torch's own pool of memory, which would hide the first, is off. Needs the CUDA library (`make gpu`
builds it) and CUDA's compute-sanitizer. With `--calls` the calls are made without it; they fail
where a result is wrong or a function of the library was not called.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from sidfast import ops
from sidfast.base import cuda
from sidfast.ops import random
from sidfast.testing.operators import OPERATORS, Inputs, Operator, adam_steps

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 1800  # for one tool: it slows kernels down by tens
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Tiles and vectors that do not come out even, samples on chip and beyond it, nothing at all.
SHAPES = ((3, 3, 17, 5), (2, 4, 6, 10), (5, 1), (2, 3, 64, 64), (1, 3, 91, 67), (0, 3, 8, 8))
LARGE = ((1, 16, 128, 128), (1, 3, 401, 399))
CALLS = {
    **OPERATORS,
    "add_noise to channels_last": Operator(
        random,
        lambda i, b: ops.add_noise(
            i.images, i.sigma, memory_format=torch.channels_last, dtype=torch.bfloat16, **i.key(b)
        ),
        ("images",),
    ),
}


class Recorded:
    """The library, and which of its functions were called."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.called.add(name)
        return getattr(self._library, name)

    def forgotten(self) -> set[str]:
        """Functions that were not called."""
        names = {name for name in dir(self._library) if not name.startswith("_")}
        return names - self.called - {"Dtype", "architectures", "versions"}


def make_calls(device: str, shapes: tuple[tuple[int, ...], ...]) -> int:
    """Call every operator with the CUDA back end and compare with the definition.

    Returns:
        the number of calls.

    Raises:
        AssertionError: a wrong result, or a function of the library that no call reached.
    """
    library, made = Recorded(cuda.library()), 0
    with mock.patch.object(cuda, "library", lambda: library):
        for shape in shapes:
            for dtype in DTYPES:
                for layout in ("contiguous", "channels_last"):
                    for name, operator in CALLS.items():
                        if "channels_last" in (layout, name.split()[-1]) and len(shape) != 4:
                            continue
                        here, there = (
                            Inputs.make(1, place, shape, dtype, layout) for place in (device, "cpu")
                        )
                        results = operator.results(here, "cuda")
                        exact = operator.results(there, "reference")
                        check(results, exact)
                        made += 1
        for beta1 in (0.0, 0.9):
            check(adam_steps(device, "cuda", beta1), adam_steps("cpu", "reference", beta1))
            made += 1
    assert not library.forgotten(), f"not called: {', '.join(sorted(library.forgotten()))}"
    return made


def check(results: list[Tensor], exact: list[Tensor]) -> None:
    for a, b in zip(results, exact, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=2e-2, atol=1e-2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", default="memcheck,racecheck")
    parser.add_argument("--calls", action="store_true")
    arguments = parser.parse_args()
    if arguments.calls:
        print(make_calls("cuda", (*SHAPES, *LARGE)), "calls")
        return 0
    tool = "compute-sanitizer"
    path = shutil.which(tool) or shutil.which(tool, path="/usr/local/cuda/bin")
    if path is None:
        raise SystemExit(f"{tool} was not found; it comes with CUDA")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    failed = []
    for name in arguments.tools.split(","):
        print(f"=== {name}", flush=True)
        command = [path, f"--tool={name}", "--error-exitcode=1", "--print-limit=20"]
        if name == "memcheck":
            # torch asks the driver for what it may lack; errors of our own calls raise.
            command += ["--report-api-errors=no"]
        command += [sys.executable, __file__, "--calls"]
        if subprocess.run(command, env=env, cwd=ROOT, timeout=SECONDS).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "nothing found")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
