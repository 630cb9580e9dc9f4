"""Prints hardware and versions as JSON; nothing that names the machine."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from typing import Any

import torch
from conftest import cpu_name

import sidfast


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def printed(pattern: str, *command: str) -> str:
    """What a command prints that matches, or nothing."""
    path = shutil.which(command[0]) or shutil.which(command[0], path="/usr/local/cuda/bin")
    if path is None:
        return ""
    done = subprocess.run([path, *command[1:]], capture_output=True, text=True)
    found = re.search(pattern, done.stdout)
    return found[1] if found else ""


def main() -> None:
    made: dict[str, Any] = {"gpu": "", "capability": ""}
    if torch.cuda.is_available():
        p = torch.cuda.get_device_properties(0)
        made |= {
            "gpu": p.name,
            "capability": f"{p.major}{p.minor}",
            "memory_GiB": round(p.total_memory / 2**30, 1),
            "multiprocessors": p.multi_processor_count,
            "L2_MiB": p.L2_cache_size // 2**20,
            "driver": printed(
                r"([\d.]+)", "nvidia-smi", "--query-gpu=driver_version", "--format=csv"
            ),
        }
    made |= {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": version("triton"),
        "nvcc": printed(r"release ([\d.]+)", "nvcc", "--version"),
        "python": platform.python_version(),
        "sidfast": sidfast.__version__,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    print(json.dumps(made))


if __name__ == "__main__":
    main()
