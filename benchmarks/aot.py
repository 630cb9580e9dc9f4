"""Compile every Triton kernel for every supported architecture, without a GPU, and look at the code.

Usage: python benchmarks/aot.py            all kernels, written to benchmarks/results/resources.md
       python benchmarks/aot.py --changed  those of files changed since, nothing written

The back ends' own launchers are called on tensors of the meta device and their launches intercepted:
what is compiled is what would run. Fails where a kernel spills registers or needs more shared memory
than a block can have. Results are kept per version of Triton: run it with each.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "resources.json"
SHARED_LIMIT = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}  # bytes a block can have
LEGEND = """# Registers, spills and shared memory of the Triton kernels

Compiled ahead of time for sm_80 / sm_90 / sm_100 by `make aot`; **not yet run on a GPU**. One row
for each different code that the calls below lead to, in the order of the architectures: registers a
thread, bytes spilled to local memory a thread (must be 0), bytes of shared memory a block (at most
163 KiB on sm_80, 227 KiB on the others).
"""
COLUMNS = ("operator", "call", "kernel", "warps", "registers", "spilled", "shared")

F32, F16, BF16, F64 = torch.float32, torch.float16, torch.bfloat16, torch.float64
PLANAR, LAST = torch.contiguous_format, torch.channels_last
Call = tuple[str, str, tuple[Any, ...]]  # operator, label, arguments


def on_meta(*shape: int, dtype: torch.dtype = F32, stored: torch.memory_format = PLANAR) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=stored)


def name(what: torch.dtype | torch.memory_format) -> str:
    return str(what).removeprefix("torch.").removesuffix("_format")


def random_calls() -> Iterator[Call]:
    seed, key = on_meta(dtype=torch.int64), on_meta(64, dtype=torch.int64)
    batch, sigma = (64, 3, 64, 64), on_meta(64)
    for shape, dtype in ((batch, F32), (batch, BF16), (batch, F16), ((64, 1), F32), ((64, 7), F32)):
        yield "normal", f"{shape} {name(dtype)}", (seed, key, shape, 1, dtype)
    for shape in (batch, (64, 1)):
        for dtype in (F32, F64):
            yield "uniform", f"{shape} {name(dtype)}", (seed, key, shape, 1, dtype)
        yield "integers", f"{shape}", (seed, key, shape, 1000, 1)
    formats = list(itertools.product((PLANAR, LAST), repeat=2))
    for shape, (stored, out) in itertools.product(
        (batch, (64, 3, 17, 5), (64, 16, 128, 128)), formats
    ):
        for dtype, out_dtype in ((F32, F32), (BF16, BF16), (F32, BF16)):
            x = on_meta(*shape, dtype=dtype, stored=stored)
            for scale in (None, sigma):
                label = f"{shape} {name(dtype)} {name(stored)} to {name(out_dtype)} {name(out)}"
                label += "" if scale is None else ", scaled"
                yield "add_noise", label, (x, sigma, scale, seed, key, 1, out_dtype, out)
    for shape, stored, dtype in itertools.product(
        (batch, (64, 3, 17, 5)), (PLANAR, LAST), (F32, BF16)
    ):
        x = on_meta(*shape, dtype=dtype, stored=stored)
        yield "dropout", f"{shape} {name(dtype)} {name(stored)}", (x, 0.1, seed, key, 1)


ROOMS = {"random": random_calls}


class NoDevice:
    """A driver for compiling alone: a device of each architecture, numbered by it."""

    capability = 0

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


def resources(kernel: Any) -> dict[str, int]:
    """Registers, spilled bytes and shared bytes of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        text = subprocess.check_output([tool, "-res-usage", file.name], text=True)
    used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return {
        "registers": used["REG"],
        "spilled": used["STACK"] + used["LOCAL"],
        "shared": kernel.metadata.shared,
    }


def compile_room(room: str) -> list[dict[str, Any]]:
    """One row for each different code that the room's calls lead to."""
    module = importlib.import_module(f"sidfast.ops.{room}._triton")
    launch, launched = JITFunction.run, []

    def intercept(self: JITFunction, *args: Any, warmup: bool, **kwargs: Any) -> None:
        launched.append(
            (self.__name__.strip("_"), partial(launch, self, *args, warmup=True, **kwargs))
        )

    rows: dict[Any, dict[str, Any]] = {}
    JITFunction.run = intercept
    try:
        for op, label, args in ROOMS[room]():
            getattr(module, op)(*args)
            for kernel_name, compiled_for in launched:
                codes = []
                for driver.active.capability in SHARED_LIMIT:
                    codes.append(compiled_for())
                row = {"operator": op, "call": label, "kernel": kernel_name}
                row |= {"warps": codes[0].metadata.num_warps, "codes": [*map(id, codes)]}
                if tuple(row["codes"]) not in rows:
                    row["resources"] = [resources(code) for code in codes]
                    rows[tuple(row["codes"])] = row
                    print(".", end="", flush=True)
            launched.clear()
    finally:
        JITFunction.run = launch
    return list(rows.values())
