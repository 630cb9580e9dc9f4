"""Compile every Triton kernel for every supported architecture, without a GPU, and look at it.

Usage: python benchmarks/aot.py [--only ROOM ...]

The back ends' own launchers are called on tensors of the meta device and their launches
intercepted: what is compiled is what would run. Fails where a kernel spills registers or needs
more shared memory than a block can have. `benchmarks/results/resources.md` keeps a section per
version of Triton, which `make aot` runs it with, and what sources the section was made of. With
`--only` nothing is written. A new back end needs its calls listed here, see `ROOMS`.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import itertools
import re
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from kernel_sources import changed, fingerprint, triton_sources, written
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from sidfast.ops.adam_ema import Operands, Settings

RESULTS = Path(__file__).parent / "results" / "resources.md"
SHARED_LIMIT = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}  # bytes a block can have
HEADER = """# Registers, spills and shared memory of the Triton kernels

**Compiled ahead of time; not yet run on a GPU.** Written by `make aot` for sm_80 / sm_90 / sm_100,
numbers in this order. One row for each different code that the calls below lead to: registers a
thread, bytes spilled a thread (must be 0), bytes of shared memory a block (at most 163 KiB on
sm_80, 227 KiB on the others).
"""
SECTION = "\n## triton "
COLUMNS = ("operator", "call", "kernel", "warps", "registers", "spilled", "shared")

F32, F16, BF16, F64 = torch.float32, torch.float16, torch.bfloat16, torch.float64
PLANAR, LAST = torch.contiguous_format, torch.channels_last
Call = tuple[str, str, tuple[Any, ...]]  # operator, label, arguments
Row = dict[str, Any]


def on_meta(*shape: int, dtype: torch.dtype = F32, stored: torch.memory_format = PLANAR) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=stored)


def name(what: torch.dtype | torch.memory_format) -> str:
    return str(what).removeprefix("torch.").removesuffix("_format")


def random_calls() -> Iterator[Call]:
    seed, key = on_meta(dtype=torch.int64), on_meta(64, dtype=torch.int64)
    batch, odd, sigma = (64, 3, 64, 64), (64, 3, 17, 5), on_meta(64)
    for shape, dtype in ((batch, F32), (batch, BF16), (batch, F16), ((64, 1), F32), ((64, 7), F32)):
        yield "normal", f"{shape} {name(dtype)}", (seed, key, shape, 1, dtype)
    for dtype in (F32, F64):
        yield "uniform", f"{batch} {name(dtype)}", (seed, key, batch, 1, dtype)
    for shape in (batch, (64, 1)):
        yield "integers", f"{shape}", (seed, key, shape, 1000, 1)
    formats = list(itertools.product((PLANAR, LAST), repeat=2))
    for shape, dtypes, scale in (
        (batch, ((F32, F32), (BF16, BF16), (F32, BF16)), sigma),
        (odd, ((F32, F32),), None),
        ((64, 16, 128, 128), ((F32, BF16),), None),
    ):
        for (dtype, out_dtype), (stored, out) in itertools.product(dtypes, formats):
            x = on_meta(*shape, dtype=dtype, stored=stored)
            label = f"{shape} {name(dtype)} {name(stored)} to {name(out_dtype)} {name(out)}"
            label += "" if scale is None else ", scaled"
            yield "add_noise", label, (x, sigma, scale, seed, key, 1, out_dtype, out)
    for shape, stored, dtype in itertools.product((batch, odd), (PLANAR, LAST), (F32, BF16)):
        x = on_meta(*shape, dtype=dtype, stored=stored)
        yield "dropout", f"{shape} {name(dtype)} {name(stored)}", (x, 0.1, seed, key, 1)


def score_losses_calls() -> Iterator[Call]:
    sigma, index = on_meta(64), on_meta(64, dtype=torch.int64)
    shapes = ((64, 7), (64, 3, 32, 32), (64, 3, 64, 64), (64, 1, 128, 128), (64, 3, 256, 256))
    calls = [(shape, dtype) for shape in shapes for dtype in (F32, BF16)]
    calls += [
        ((64, 4095), F32),
        ((64, 8191), F32),
        ((64, 3, 63, 61), F32),
        ((64, 3, 2048, 2048), BF16),
    ]
    for shape, dtype in calls:
        x, label = on_meta(*shape, dtype=dtype), f"{shape} {name(dtype)}"
        sid = (x, x, x, 1.2, 1e-5)
        yield "sid_loss", label, sid
        yield "sid_loss_grads", f"{label}, all", (*sid, 1.0, (True, True, True))
        yield "dsm_loss", label, (x, x, sigma, 0.5)
        yield "dsm_loss_grad", label, (x, x, sigma, 0.5, 1.0)
    for shape, dtype in (((64, 3, 64, 64), F32), ((64, 3, 64, 64), BF16), ((64, 3, 256, 256), F32)):
        x, label = on_meta(*shape, dtype=dtype), f"{shape} {name(dtype)}"
        yield "vsd_loss", label, (x, x, x, sigma, 0.0, 1e-6)
        yield "vsd_loss_grad", label, (x, x, x, sigma, 0.0, 1e-6, 1.0)
    for shape, dtypes in (((64, 3, 64, 64), (F32,) * 3), ((64, 7), (F32, BF16, BF16, F32))):
        grads, label = (
            [on_meta(*shape, dtype=dtype) for dtype in dtypes],
            " ".join(map(name, dtypes)),
        )
        yield "rescale", f"{shape} {label}", (sigma, 100.0, *grads)
    whole, cut = (64, 3, 64, 64), ((64, 3, 256, 256), (64, 3, 63, 61))
    noise, last, noisy = ("noise", PLANAR), ("noise", LAST), ("noisy", PLANAR)
    raw_calls = [
        *((whole, F32, dtype, source) for dtype in (F32, BF16) for source in (noise, last, noisy)),
        *((whole, BF16, BF16, source) for source in (noise, last, noisy)),
        *((shape, F32, BF16, noise) for shape in ((64, 7), (64, 4095))),
        *((shape, F32, BF16, source) for shape in cut for source in (noise, last)),
        ((64, 8, 32, 32), F32, BF16, last),
    ]
    for shape, dtype, raw_dtype, (source, stored) in raw_calls:
        x = on_meta(*shape, dtype=dtype, stored=stored)
        raw = on_meta(*shape, dtype=raw_dtype, stored=stored)
        key = (on_meta(dtype=torch.int64), index) if source == "noise" else (None, None)
        given = None if source == "noise" else x
        folded = (given, sigma, *key, 1, sigma, sigma)
        sid, dsm = (x, raw, raw, *folded, 1.2, 1e-5), (x, raw, *folded, 0.5)
        label = f"{shape} {name(dtype)}, {name(raw_dtype)} {name(stored)}, {source}"
        if (shape, source) == (whole, "noise"):
            yield "sid_loss_raw", label, sid
            yield "dsm_loss_raw", label, dsm
        yield (
            "sid_loss_raw_grads",
            f"{label}, all",
            (*sid, 1.0, (True, True, True, given is not None)),
        )
        yield "dsm_loss_raw_grad", label, (*dsm, 1.0)


def adam_ema_calls() -> Iterator[Call]:
    whole, odd = on_meta(1 << 20), on_meta((1 << 20) + 1)[1:]
    number, skipped = on_meta(), on_meta(dtype=torch.int64)
    usual = Settings(1e-3, (0.9, 0.99), 1e-8, ema_beta=0.5)
    captured = usual._replace(lr=number, ema_beta=number.double())
    for x, settings, average, copy, label in (
        (whole, usual, True, None, "average"),
        (whole, usual, False, BF16, "bfloat16 copy"),
        (whole, usual, True, F16, "average, float16 copy"),
        (whole, usual._replace(betas=(0.0, 0.99)), True, None, "beta1 0, average"),
        (whole, usual._replace(weight_decay=0.1, clamp=True), True, None, "average, L2, clamp"),
        (whole, captured, True, None, "average, numbers of the device"),
        (odd, usual, True, BF16, "average, bfloat16 copy, unaligned"),
    ):
        each, first = [x] * 17, [x] * 17 if settings.betas[0] else None
        ema, copies = each if average else None, [x.to(copy)] * 17 if copy else None
        operands = Operands(each, first, each, [number] * 17, ema, copies, skipped)
        yield "adam_ema", label, (operands, each, settings)


ROOMS = {"random": random_calls, "score_losses": score_losses_calls, "adam_ema": adam_ema_calls}


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


def call(module: ModuleType, op: str, args: tuple[Any, ...]) -> None:
    """Call a back end's operator; one that only prepares gets its operands, then the others."""
    if op == "adam_ema":
        operands, *step = args
        module.adam_ema(operands)(*step)
    else:
        getattr(module, op)(*args)


def compile_room(room: str) -> list[Row]:
    """One row for each different code that the room's calls lead to."""
    module = importlib.import_module(f"sidfast.ops.{room}._triton")
    launch, launched = JITFunction.run, []
    rows: dict[tuple[int, ...], Row] = {}

    def intercept(kernel: JITFunction, *args: Any, warmup: bool, **kwargs: Any) -> None:
        compiled = partial(launch, kernel, *args, warmup=True, **kwargs)
        launched.append((kernel.__name__.strip("_"), compiled))

    JITFunction.run = intercept
    try:
        for op, label, args in ROOMS[room]():
            call(module, op, args)
            for kernel_name, compiled in launched:
                codes = []
                for architecture in SHARED_LIMIT:
                    driver.active.capability = architecture
                    codes.append(compiled())
                key = tuple(map(id, codes))
                if key not in rows:
                    rows[key] = {"operator": op, "call": label, "kernel": kernel_name}
                    rows[key]["warps"] = codes[0].metadata.num_warps
                    each = [resources(code) for code in codes]
                    rows[key] |= {what: [used[what] for used in each] for what in each[0]}
            launched.clear()
    finally:
        JITFunction.run = launch
    return list(rows.values())


def faults(row: Row) -> list[str]:
    """What is wrong with a row's code; empty if nothing is."""
    found = [f"spills {row['spilled']} bytes"] if any(row["spilled"]) else []
    for (architecture, limit), used in zip(SHARED_LIMIT.items(), row["shared"], strict=True):
        if used > limit:
            found.append(f"needs {used} bytes of shared memory on sm_{architecture}, has {limit}")
    return found


def missing() -> str:
    """Why this Triton cannot compile for NVIDIA's devices; empty if it can."""
    try:
        return "" if triton.knobs.nvidia.ptxas.path else "triton has no ptxas"
    except RuntimeError as error:
        return str(error)


def fingerprints() -> dict[str, str]:
    """Of what each room's rows are made of: its kernels as they are now, and its calls."""
    return {
        room: fingerprint(triton_sources(room), inspect.getsource(calls))
        for room, calls in ROOMS.items()
    }


def sections() -> dict[str, str]:
    """What the results hold for each version of Triton."""
    parts = RESULTS.read_text(encoding="utf-8").split(SECTION)[1:] if RESULTS.exists() else []
    return {version: body.strip() for version, _, body in (each.partition("\n") for each in parts)}


def changed_rooms() -> list[str]:
    """The rooms whose sources are not those of this version's section."""
    return changed(fingerprints(), sections().get(triton.__version__, ""))


def write(rows: list[Row]) -> None:
    """Put the rows into the section of this version of Triton; other versions' stay."""
    cells = [COLUMNS, ["---"] * len(COLUMNS)]
    for row in rows:
        row = {**row, **{what: " / ".join(map(str, row[what])) for what in COLUMNS[4:]}}
        cells.append([str(row[column]) for column in COLUMNS])
    table = "\n".join(f"| {' | '.join(line)} |" for line in cells)
    bodies = {**sections(), triton.__version__: f"{written(fingerprints())}\n\n{table}"}
    newest_first = sorted(bodies.items(), reverse=True)
    text = "".join(f"{SECTION}{version}\n\n{body}\n" for version, body in newest_first)
    RESULTS.write_text(HEADER + text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ROOMS, nargs="+")
    only = parser.parse_args().only
    driver.set_active(NoDevice())
    rows = [row for room in only or ROOMS for row in compile_room(room)]
    if only:
        for row in rows:
            print(*row.values())
    else:
        write(rows)
    bad = [f"{row['kernel']}, {row['call']}: {fault}" for row in rows for fault in faults(row)]
    if bad:
        raise SystemExit("\n".join(bad))
    print(f"{len(rows)} kernels for {len(SHARED_LIMIT)} architectures: nothing spilled")


if __name__ == "__main__":
    main()
