"""CUDA kernels on a CPU: the same sources, compiled by a C++ compiler over tests/cuda_emulator."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor

from sidfast.base import cuda

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = ROOT / "tests" / "cuda_emulator"
SOURCES = (
    "csrc/cuda_bindings.cpp",
    "csrc/adam_ema/cuda.cu",
    "csrc/score_losses/cuda.cu",
    "csrc/random/cuda.cu",
    "tests/cuda_emulator/emulator.cpp",
)
# Unaligned accesses, which a GPU refuses, end the process; jumps between stacks do not.
FLAGS = (
    *("-std=c++20", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE"),
    *("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"),
    '-DSIDFAST_CUDA_ARCHITECTURES="emulated"',
)


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "c++"))


def missing() -> str:
    """Why kernels cannot be emulated here; empty if they can."""
    if not sys.platform.startswith("linux"):
        return "the CUDA emulator needs Linux"
    if not EMULATOR.is_dir():
        return "the CUDA emulator needs a checkout"
    return "" if _compiler() else "the CUDA emulator needs a C++ compiler"


@cache
def library() -> ModuleType:
    """The module `sidfast.base._cuda` with emulated kernels, compiled when its sources changed."""
    compiler = _compiler()
    assert compiler is not None
    folder = ROOT / "build" / "cuda_emulator" / _fingerprint(compiler)
    built = folder / "_cuda.so"
    if not built.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _compile(compiler, folder, built)
    spec = importlib.util.spec_from_file_location(cuda.MODULE, built)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def emulated() -> Iterator[None]:
    """Let the CUDA back ends serve CPU tensors, through the emulator."""

    def reasons(*tensors: Tensor) -> list[str]:
        return [] if all(tensor.is_cpu for tensor in tensors) else ["serves CPU tensors only"]

    with (
        mock.patch.object(cuda, "_load", lambda: (library(), "")),
        mock.patch.object(cuda, "reasons", reasons),
        mock.patch.object(cuda, "where", lambda x: (0, x.get_device())),
    ):
        cuda.storage.cache_clear()
        try:
            yield
        finally:
            cuda.storage.cache_clear()


def _fingerprint(compiler: str) -> str:
    text = hashlib.sha256(f"{compiler} {FLAGS} {torch.__version__}".encode())
    for folder in (ROOT / "csrc", EMULATOR):
        for path in sorted(folder.rglob("*.*")):
            text.update(path.read_bytes())
    return text.hexdigest()[:16]


def _compile(compiler: str, folder: Path, built: Path) -> None:
    pybind11 = Path(torch.__file__).parent / "include"
    include = [f"-I{EMULATOR}", f"-I{ROOT / 'csrc'}"]
    include += ["-isystem", str(pybind11), "-isystem", sysconfig.get_paths()["include"]]
    objects, running = [], []
    for source in SOURCES:
        target = folder / (source.replace("/", "_") + ".o")
        optimized = "-O0" if "bindings" in source else "-O1"
        command = [compiler, *FLAGS, optimized, *include, "-x", "c++", "-c", str(ROOT / source)]
        running.append(subprocess.Popen([*command, "-o", str(target)]))
        objects.append(str(target))
    failed = [source for source, run in zip(SOURCES, running, strict=True) if run.wait() != 0]
    if failed:
        raise RuntimeError(f"the emulated CUDA library does not compile: {', '.join(failed)}")
    partial = built.with_suffix(f".{os.getpid()}")
    subprocess.run([compiler, "-shared", "-pthread", *objects, "-o", str(partial)], check=True)
    partial.replace(built)
