"""How a row of the benchmark table is measured: first checked, then timed in turn with rivals."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sidfast
from sidfast.base import native
from sidfast.base.memory import keep_freed_memory

Call = Callable[[], Any]

SECONDS = 2.0  # a row may take, its rivals included
ROUNDS = (15, 400)
THREADS = sorted({1, os.cpu_count() or 1})


@dataclass(frozen=True)
class Case:
    """What a row measures. `bytes` are read and written once; `flops` count floats only."""

    op: str
    mode: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    threads: int
    bytes: int
    flops: int
    backend: str = "native"

    def row(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self) | {"dtype": str(self.dtype).removeprefix("torch.")}


def memory_floor(read_and_written: int, outputs: int) -> dict[str, Call]:
    """Rivals that only copy: as many bytes in all, in `outputs` pieces.

    `copy` writes into buffers that exist, `clone` into fresh ones, as an operator that returns its
    result does.
    """
    size = read_and_written // 2 // outputs
    sources = [torch.zeros(size, dtype=torch.uint8).view(torch.float32) for _ in range(outputs)]
    targets = [torch.empty_like(source) for source in sources]

    def copy() -> None:
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source)

    def clone() -> list[Tensor]:
        return [source.clone() for source in sources]

    return {"copy": copy, "clone": clone}


def worst_error(made: list[Tensor], exact: list[Tensor]) -> float:
    """Largest over the results of max |difference| / max |exact|."""
    return max(
        ((a.double() - b).abs().max() / b.abs().max()).item()
        for a, b in zip(made, exact, strict=True)
    )


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    torch.compiler.reset()
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def race(benchmark: Any) -> Callable[..., None]:
    """Times a call against rivals, in turn, in one process; before each timed call an untimed one.

    So every rival meets caches and an allocator as its own previous call left them, as in a loop.
    `error` and `budget` come from a comparison with the float64 definition: a wrong result gets no
    speed.
    """

    def run(case: Case, call: Call, rivals: dict[str, Call], error: float, budget: float) -> None:
        if native.reasons():
            pytest.skip("; ".join(native.reasons()))
        if not error <= budget:
            pytest.fail(f"no speed for a wrong result: error {error:.2e}, allowed {budget:.2e}")
        keep_freed_memory()
        times: dict[str, list[float]] = {name: [] for name in rivals}

        def rivals_round() -> None:
            for name, rival in rivals.items():
                rival()
                start = time.perf_counter()
                rival()
                times[name].append(time.perf_counter() - start)
            call()

        for _ in range(3):
            rivals_round()
        once = 2 * sum(series[-1] for series in times.values())
        rounds = int(min(max(SECONDS / once, ROUNDS[0]), ROUNDS[1]))
        for series in times.values():
            series.clear()
        benchmark.pedantic(call, setup=rivals_round, rounds=rounds, iterations=1)
        medians = {name: statistics.median(series) for name, series in times.items()}
        benchmark.extra_info.update(case.row(), error=error, budget=budget, rivals=medians)

    return run


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: Any) -> None:
    """Hardware and versions; nothing that names the machine."""
    machine_info.clear()
    library = None if native.reasons() else native.cpu_library()
    machine_info.update(
        cpu=cpu_name(),
        cores=os.cpu_count(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        sidfast=sidfast.__version__,
        instruction_set=library.isa() if library else "none",
        compiler=library.compiler if library else "none",
    )


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: Any) -> None:
    for name in ("author_time", "project", "branch"):
        commit_info.pop(name, None)


def cpu_name() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
