"""Which sources a room's GPU kernels are made of: how a table of their registers knows its age."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def triton_sources(room: str) -> list[Path]:
    """The room's Triton back end and the modules with Triton code that it imports."""
    return _reached(ROOT / "sidfast" / "ops" / room / "_triton.py", _imported)


def cuda_sources(room: str) -> list[Path]:
    """The room's CUDA source and the files of ours that it includes."""
    return _reached(ROOT / "csrc" / room / "cuda.cu", _included)


def rooms_with(file: str, folder: str) -> list[str]:
    """The rooms that have `file` in the folder that holds rooms."""
    return sorted(path.parent.name for path in (ROOT / folder).glob(f"*/{file}"))


def fingerprint(paths: Iterable[Path], *more: str) -> str:
    """Of the contents of files and of further text."""
    digest = hashlib.sha256("\n".join(more).encode())
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def written(fingerprints: dict[str, str]) -> str:
    """A line of Markdown that `recorded` reads."""
    return "Sources: " + ", ".join(f"{room} `{each}`" for room, each in fingerprints.items())


def recorded(text: str) -> dict[str, str]:
    """The fingerprint of each room in a text with such a line; empty without one."""
    line = re.search(r"^Sources: .*$", text, re.MULTILINE)
    return dict(re.findall(r"(\w+) `(\w+)`", line[0])) if line else {}


def changed(fingerprints: dict[str, str], text: str) -> list[str]:
    """The rooms whose sources are not those that the text records."""
    known = recorded(text)
    return [room for room, each in fingerprints.items() if known.get(room) != each]


def _reached(start: Path, neighbours: Callable[[Path], Iterable[Path]]) -> list[Path]:
    found, todo = set(), [start]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += neighbours(path)
    return sorted(found)


def _imported(path: Path) -> list[Path]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = [ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("sidfast.")]
    return [each for each in files if each.is_file() and "import triton" in each.read_text()]


def _included(path: Path) -> list[Path]:
    named = re.findall(r'^#include "(.+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
    return [ROOT / "csrc" / name for name in named]
