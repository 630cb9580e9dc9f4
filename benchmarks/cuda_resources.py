"""Registers and spills of the CUDA library's kernels, as a Markdown table.

    python benchmarks/cuda_resources.py > benchmarks/results/cuda_resources.md

Needs the library (`SIDFAST_CUDA=1 pip install .`) and, on PATH, cuobjdump (CUDA) and c++filt
(binutils); no GPU. Ends with status 1 if a kernel spills.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys

from sidfast.base import cuda

USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


def run(tool: str, *args: str) -> str:
    """What a tool prints."""
    path = shutil.which(tool)
    if path is None:
        raise SystemExit(f"{tool} was not found; put it on PATH")
    return subprocess.run([path, *args], capture_output=True, text=True, check=True).stdout


def short(name: str) -> str:
    """A kernel's name without namespaces and parameters."""
    name = re.sub(r"\((?:anonymous namespace|int)\)|<unnamed>|sidfast::|cuda::|::", "", name)
    return re.sub(r"^void |\(.*$", "", name)


def main() -> int:
    spec = importlib.util.find_spec(cuda.MODULE)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{cuda.MODULE} was not built")
    found: dict[str, dict[str, tuple[int, int, int]]] = {}
    for part in run("cuobjdump", "-res-usage", spec.origin).split("arch = ")[1:]:
        architecture = part.split()[0]
        for match in USAGE.finditer(part):
            registers, stack, shared, local = map(int, match.groups()[1:])
            name = run("c++filt", match[1]).strip()
            found.setdefault(short(name), {})[architecture] = registers, stack + local, shared
    architectures = sorted(
        {each for row in found.values() for each in row}, key=lambda a: int(a[3:])
    )
    print("# CUDA kernels: registers and spills\n")
    print("compiled; not yet run on a GPU\n")
    print("registers / spilled bytes (stack and local memory) / shared bytes\n")
    print("| kernel |", " | ".join(architectures), "|")
    print("|---" * (1 + len(architectures)) + "|")
    for name, row in sorted(found.items()):
        cells = [" / ".join(map(str, row[each])) if each in row else "" for each in architectures]
        print(f"| `{name}` |", " | ".join(cells), "|")
    return int(any(usage[1] for row in found.values() for usage in row.values()))


if __name__ == "__main__":
    sys.exit(main())
