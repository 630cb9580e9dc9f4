"""`make gpu` without a GPU: a rehearsal of all of it, and that no part takes another's results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from sidfast.testing import cuda_emulator

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = __import__("gpu")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(module, "WORK", work)
    return module


@pytest.mark.long
def test_rehearsal(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--rehearse", "--results", str(tmp_path)]
    done = subprocess.run(
        command,
        env={**os.environ, "OUT": str(out)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads((tmp_path / "rehearsal.json").read_text())
    assert {part["outcome"] for part in made["parts"].values()} == {"passed"}
    assert made["parts"]["tests"]["counts"]["skipped"] > 100
    assert all(row["times"]["copy"]["median"] > 0 for row in made["operators"]["contests"])
    assert made["digits"]["frechet_end"] < made["digits"]["frechet_start"]
    assert len(made["baseline"]["iterations"]) == 4
    page = (out / "rehearsal.md").read_text()
    for title in ("Operators", "What a call costs", "The digits demo", "Baseline"):
        assert f"## {title}" in page
    assert "=== tests-gpu.log" in (out / "gpu.log").read_text()


def test_a_late_process_is_ended_and_a_broken_one_named(gpu: ModuleType) -> None:
    commands = {
        "good": ["-c", "print('fine')"],
        "broken": ["-c", "raise SystemExit('nothing works')"],
        "late": ["-c", "import time; time.sleep(60)"],
    }
    record = gpu.run(gpu.Part("tests", 1, commands), 1.0, dict(os.environ))
    assert record["outcome"] == "out of time" and record["seconds"] < 20
    assert record["unfinished"] == ["late"] and record["failed"] == ["broken"]
    assert "nothing works" in record["tail"]["broken"]


def test_outcomes_are_counted_from_unfinished_output(gpu: ModuleType) -> None:
    text = (
        "tests/ops/test_a.py::test_x[cuda-triton] PASSED [ 10%]\n"
        "tests/ops/test_a.py::test_y[cuda-cuda] FAILED\n"
        "[gw1] [ 30%] PASSED tests/ops/test_a.py::test_z\n"
        "=== short test summary info ===\n"
        "FAILED tests/ops/test_a.py::test_y[cuda-cuda] - AssertionError: PASSED is no outcome\n"
    )
    counted = gpu.counted({"all": text, "late": "tests/gpu/test_b.py::test_w SKIPPED (x)\ntests/"})
    assert counted["counts"] == {"passed": 2, "failed": 1, "skipped": 1}
    assert counted["failures"] == ["tests/ops/test_a.py::test_y[cuda-cuda]"]


def test_an_interrupted_run_keeps_what_it_has(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = gpu.Part("quick", 60, {"quick": ["-c", "print('fine')"]})
    slow = gpu.Part("slow", 60, {"slow": ["-c", "import time; time.sleep(60)"]})
    monkeypatch.setattr(gpu, "parts", lambda rehearse: [quick, slow])
    machine = {"gpu": "NVIDIA H100 80GB HBM3", "capability": "90"}
    monkeypatch.setattr(gpu, "look", lambda env, rehearse: machine)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--results", str(tmp_path / "results")])
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        assert gpu.main() == 130
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
    made = json.loads((tmp_path / "results" / "h100.json").read_text())
    assert [part["outcome"] for part in made["parts"].values()] == ["passed", "interrupted"]


def test_some_parts_alone_leave_the_others_results(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [gpu.Part(name, 60, {name: ["-c", "print('fine')"]}) for name in ("a", "b")]
    monkeypatch.setattr(gpu, "parts", lambda rehearse: parts)
    machine = {"gpu": "NVIDIA H100 80GB HBM3", "capability": "90"}
    monkeypatch.setattr(gpu, "look", lambda env, rehearse: machine)
    before, results = signal.getsignal(signal.SIGTERM), tmp_path / "results"

    def made(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--results", str(results), *arguments])
        try:
            assert gpu.main() == 0
        finally:
            signal.signal(signal.SIGTERM, before)
        return list(json.loads((results / "h100.json").read_text())["parts"])

    assert made("--only", "b") == ["b"]
    assert made("--only", "a") == ["b", "a"]
    machine["gpu"] += "e"
    assert made("--only", "a") == ["a"]
    assert made() == ["a", "b"]


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
    ],
)
def test_results_are_named_by_device(gpu: ModuleType, device: str, name: str) -> None:
    assert gpu.slug(device) == name


def test_a_page_is_made_of_whatever_there_is(gpu: ModuleType) -> None:
    part = {"outcome": "failed", "seconds": 1.0, "unfinished": [], "failed": ["operators"]}
    timed = {"op": "sid_loss", "mode": "forward", "shape": [4, 3], "dtype": "float32"}
    timed |= {"layout": "", "bytes": 96, "ours": ["triton", "cuda"], "launches": {"triton": 1}}
    timed |= {"times": {name: {"median": 1.0, "iqr": 0.1} for name in ("triton", "eager", "copy")}}
    timed |= {"errors": {"triton": 1e-8, "cuda": 1.0}, "failures": {"cuda": "error 1.00e+00"}}
    results = {
        "machine": {"gpu": "NVIDIA H100 80GB HBM3", "torch": "2.11"},
        "parts": {"operators": part},
        "operators": {
            "cuda_library": "CUDA 13.0",
            "floors": {"copy_GB_per_s": 3000.0, "gemm_TFLOP_per_s": {"fp32": 50.0}},
            "contests": [timed, {"op": "adam_ema_step", "failures": {"all": "no memory"}}],
        },
        "baseline": {
            "iterations": [{"precision": "fp32", "batch": 256, "failure": "no memory"}],
            "rounding": [],
        },
    }
    page = gpu.page(results)
    assert "| error 1.00e+00 |" in page and page.count("no memory") == 2
    assert "| triton | 1.00 |" in __import__("gpu_report").readme(results)
    assert gpu.page({"machine": results["machine"], "parts": {}}).startswith("# NVIDIA H100")


@pytest.mark.long
def test_the_sanitizer_meets_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls, on emulated kernels."""
    if cuda_emulator.missing():
        pytest.skip(cuda_emulator.missing())
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sanitize = __import__("gpu_sanitize")
    with cuda_emulator.emulated():
        assert sanitize.make_calls("cpu", ((3, 3, 9, 5), (2, 4, 6, 10))) > 80
