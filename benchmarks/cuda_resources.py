"""Compile the CUDA kernels for every supported architecture, without a GPU, and look at them.

Usage: python benchmarks/cuda_resources.py [--only ROOM ...]

Needs nvcc 12.8 or later and c++filt (binutils). Fails where a kernel spills registers; more shared
memory than a block can have, nvcc refuses by itself. Writes benchmarks/results/cuda_resources.md,
with `--only` nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from kernel_sources import ROOT, changed, cuda_sources, fingerprint, rooms_with, written

RESULTS = Path(__file__).parent / "results" / "cuda_resources.md"
ARCHITECTURES = (80, 90, 100)
ROOMS = rooms_with("cuda.cu", "csrc")
# As in cmake/cuda.cmake.
FLAGS = ("-O3", "-std=c++17", "--fmad=false", f"-I{ROOT / 'csrc'}")
HEADER = f"""# CUDA kernels: registers and spills

**Compiled ahead of time; not yet run on a GPU.** Written by `make aot` for
{" / ".join(f"sm_{each}" for each in ARCHITECTURES)}, numbers in this order: registers a thread, \
bytes spilled a thread (must be 0),
bytes of shared memory a block.

"""
USAGE = re.compile(
    r"entry function '(\S+)' for 'sm_(\d+)'.*?(\d+) bytes stack frame.*?Used (\d+) registers(.*?)$",
    re.DOTALL | re.MULTILINE,
)
Usage = tuple[int, int, int]  # registers, bytes spilled, bytes shared


def nvcc() -> str | None:
    """Path of CUDA's compiler."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    named = os.environ.get("CUDACXX")
    return named or shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def missing() -> str:
    """Why the kernels cannot be compiled here; empty if they can."""
    if nvcc() is None:
        return "nvcc was not found; put it on PATH"
    return "" if shutil.which("c++filt") else "c++filt (binutils) was not found; put it on PATH"


def short(name: str) -> str:
    """A kernel's name without namespaces and parameters."""
    name = re.sub(r"\((?:anonymous namespace|int)\)|<unnamed>|sidfast::|cuda::|::", "", name)
    return re.sub(r"^void |\(.*$", "", name)


def compile_room(room: str) -> dict[str, dict[int, Usage]]:
    """What each kernel of the room takes on each architecture."""
    compiler = nvcc()
    assert compiler is not None
    targets = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in ARCHITECTURES]
    with tempfile.TemporaryDirectory() as folder:
        out = ("--resource-usage", "-fatbin", "-o", f"{folder}/room.fatbin")
        command = [compiler, *FLAGS, *targets, *out, str(ROOT / "csrc" / room / "cuda.cu")]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, dict[int, Usage]] = {}
    matches = list(USAGE.finditer(done.stdout + done.stderr))
    mangled = "\n".join(match[1] for match in matches)
    names = subprocess.check_output(["c++filt"], input=mangled, text=True).splitlines()
    for name, match in zip(names, matches, strict=True):
        architecture, spilled, registers = map(int, match.groups()[1:4])
        shared = re.search(r"(\d+) bytes smem", match[5])
        usage = registers, spilled, int(shared[1]) if shared else 0
        found.setdefault(short(name), {})[architecture] = usage
    if not found:
        raise SystemExit(f"{compiler} says nothing of the kernels of {room}:\n{done.stderr}")
    return found


def fingerprints() -> dict[str, str]:
    """The fingerprint of each room's sources as they are now."""
    return {room: fingerprint(cuda_sources(room)) for room in ROOMS}


def changed_rooms() -> list[str]:
    """The rooms whose sources are not those that the table was made of."""
    return changed(fingerprints(), RESULTS.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ROOMS, nargs="+")
    only = parser.parse_args().only
    if missing():
        print(f"CUDA kernels were not compiled: {missing()}")
        return
    lines, bad = ["| room | kernel | registers | spilled | shared |", "|---" * 5 + "|"], []
    for room in only or ROOMS:
        for name, usages in sorted(compile_room(room).items()):
            columns = zip(*(usages[each] for each in ARCHITECTURES), strict=True)
            cells = [" / ".join(map(str, column)) for column in columns]
            lines.append(f"| {room} | `{name}` | {' | '.join(cells)} |")
            bad += [f"{room}: {name} spills" for usage in usages.values() if usage[1]]
    table = "\n".join(lines) + "\n"
    if only:
        print(table)
    else:
        text = f"{HEADER}{written(fingerprints())}\n\n{table}"
        RESULTS.write_text(text, encoding="utf-8")
    if bad:
        raise SystemExit("\n".join(sorted(set(bad))))
    print(f"{len(lines) - 2} kernels for {len(ARCHITECTURES)} architectures: nothing spilled")


if __name__ == "__main__":
    main()
