"""GPU kernels that changed since `make aot` still compile for every architecture, unspilled."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from sidfast.testing.tensors import INTERPRETED

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the benchmarks' folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module(name)


def check(table: ModuleType) -> None:
    """Compile the rooms whose sources are not those that the table was made of."""
    if table.missing():
        pytest.skip(table.missing())
    changed = table.changed_rooms()
    if not changed:
        return
    command = [sys.executable, str(table.__file__), "--only", *changed]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parent)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n`make aot` shows the whole table"
    older = f"{table.RESULTS.name} is older than {', '.join(changed)}: run `make aot`"
    warnings.warn(older, stacklevel=1)


@pytest.mark.skipif(INTERPRETED, reason="kernels are interpreted")
def test_triton_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    aot = script("aot", monkeypatch)
    sources = script("kernel_sources", monkeypatch)
    assert sources.rooms_with("_triton.py", "sidfast/ops") == sorted(aot.ROOMS)
    check(aot)


def test_cuda_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    check(script("cuda_resources", monkeypatch))


def test_a_source_that_others_use_changes_their_fingerprints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources = script("kernel_sources", monkeypatch)
    for file, text in {
        "csrc/a/cuda.cu": '#include "base/x.cuh"\n#include <cstdint>\n',
        "csrc/base/x.cuh": '#include "base/y.h"\n',
        "csrc/base/y.h": "",
        "csrc/b/cuda.cu": "",
        "sidfast/ops/a/_triton.py": "import triton\nfrom sidfast.base import x\n",
        "sidfast/base/x.py": "import triton\n",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    rooms = sources.rooms_with("cuda.cu", "csrc")

    def now() -> dict[str, str]:
        each = {room: sources.fingerprint(sources.cuda_sources(room)) for room in rooms}
        return each | {"triton": sources.fingerprint(sources.triton_sources("a"))}

    text = f"# Table\n{sources.written(now())}\n| a `b` |\n"
    assert rooms == ["a", "b"] and sources.changed(now(), text) == []
    assert sources.changed(now(), "# Table") == ["a", "b", "triton"]
    (tmp_path / "csrc/base/y.h").write_text("int z;")
    assert sources.changed(now(), text) == ["a"]
    (tmp_path / "sidfast/base/x.py").write_text("import triton, torch\n")
    assert sources.changed(now(), text) == ["a", "triton"]
