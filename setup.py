"""Builds the native libraries with CMake; everything else is in pyproject.toml.

Without a C++ compiler, or with SIDFAST_NO_NATIVE=1, the package installs as pure Python. The CUDA
library is built where nvcc and a GPU driver are, in about a minute, and never with SIDFAST_CUDA=0;
SIDFAST_CUDA=1 asks for it, and then a failure is an error. SIDFAST_CUDA_ARCHS chooses its devices
instead of all that we know and nvcc has: "90", "80;90", or "native" for those of this machine.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
CPU, CUDA = "sidfast.base._cpu", "sidfast.base._cuda"
WITHOUT = {
    CPU: "the native CPU library could not be built (is there a C++17 compiler?); installing as"
    " pure Python, slower. `sidfast info` shows the state.",
    CUDA: "the CUDA library could not be built (is there nvcc 12 or later, and a C++ compiler that"
    " it accepts?); installing without it. `sidfast info` shows the state.",
}


def tool(name: str, module: str, attribute: str) -> str:
    """Path of a build tool: from the package of that name, as pip provides it, or from PATH."""
    try:
        found = shutil.which(name, path=getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError):
        found = None
    found = found or shutil.which(name)
    if found is None:
        raise CompileError(f"{name} was not found; pip install {name}")
    return found


def nvcc() -> str | None:
    """Path of CUDA's compiler."""
    named = os.environ.get("CUDACXX")
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return named or shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


class CMakeBuild(build_ext):
    """Configures and builds the CMake target of an extension's name where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        target = ext.name.rpartition(".")[2]
        build = Path(self.build_temp).resolve() / target
        build.mkdir(parents=True, exist_ok=True)
        try:
            import pybind11

            cmake = tool("cmake", "cmake", "CMAKE_BIN_DIR")
            configure = [
                cmake,
                *("-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
                f"-DCMAKE_MAKE_PROGRAM={tool('ninja', 'ninja', 'BIN_DIR')}",
                "-DCMAKE_BUILD_TYPE=Release",
                f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
                f"-DPython_EXECUTABLE={sys.executable}",
                "-DPYBIND11_FINDPYTHON=ON",
                f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output.parent}",
                *(cuda_options() if ext.name == CUDA else []),
            ]
            subprocess.run(configure, check=True)
            subprocess.run([cmake, "--build", str(build), "--target", target], check=True)
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            raise CompileError(f"{error}\nsidfast: {WITHOUT[ext.name]}") from error


def cuda_options() -> list[str]:
    architectures = os.environ.get("SIDFAST_CUDA_ARCHS", "").replace(";", " ").split()
    compiler = nvcc()
    return [
        "-DSIDFAST_CUDA=ON",
        f"-DSIDFAST_CUDA_ARCHS={';'.join(architectures)}",
        *([f"-DCMAKE_CUDA_COMPILER={compiler}"] if compiler else []),
    ]


def serves_cuda() -> bool:
    """Whether this machine has both nvcc and a driver."""
    driver = shutil.which("nvidia-smi") or ctypes.util.find_library("cuda")
    return bool(driver and nvcc())


def extensions() -> list[Extension]:
    if os.environ.get("SIDFAST_NO_NATIVE", "0") not in ("", "0"):
        return []
    found = [Extension(CPU, sources=[], optional=True)]
    asked = os.environ.get("SIDFAST_CUDA", "")
    if asked not in ("", "0"):
        found.append(Extension(CUDA, sources=[], optional=False))
    elif asked == "" and serves_cuda():
        found.append(Extension(CUDA, sources=[], optional=True))
    return found


setup(ext_modules=extensions(), cmdclass={"build_ext": CMakeBuild})
