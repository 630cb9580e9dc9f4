"""Builds the native library with CMake; everything else is in pyproject.toml.

Without a C++ compiler, or with SIDFAST_NO_NATIVE=1, the package installs as pure Python.
"""

from __future__ import annotations

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


class CMakeBuild(build_ext):
    """Configures and builds one CMake target into the place setuptools expects."""

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve() / "cmake"
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
            ]
            subprocess.run(configure, check=True)
            subprocess.run([cmake, "--build", str(build)], check=True)
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            raise CompileError(
                f"{error}\nsidfast: the native CPU library could not be built (is there a C++17"
                " compiler?); installing as pure Python, slower. `sidfast info` shows the state."
            ) from error


def extensions() -> list[Extension]:
    if os.environ.get("SIDFAST_NO_NATIVE", "0") not in ("", "0"):
        return []
    return [Extension("sidfast.base._cpu", sources=[], optional=True)]


setup(ext_modules=extensions(), cmdclass={"build_ext": CMakeBuild})
