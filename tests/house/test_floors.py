"""The design's floors: an import only goes down, and rooms do not import each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sidfast

ROOT = Path(sidfast.__file__).parent

FLOORS = {
    "base": 0,
    "ops": 1,
    "nn": 2,
    "optim": 2,
    "diffusion": 2,
    "networks": 3,
    "teachers": 3,
    "data": 3,
    "losses": 4,
    "steps": 4,
    "distillation": 5,
    "evaluate": 5,
    "recipes": 5,
    "environment": 6,
    "cli": 6,
    "__main__": 7,
}
# Imports between places of one floor that the design allows.
SIDEWAYS = {
    ("teachers", "networks"),
    ("recipes", "distillation"),
    ("distillation", "evaluate"),
    ("cli", "environment"),
}
# Tests and benchmarks only; may look anywhere.
APART = {"testing", "__init__"}


def imports(path: Path) -> set[str]:
    """Every sidfast module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "sidfast"}


def place(parts: tuple[str, ...] | list[str]) -> str:
    return parts[0].removesuffix(".py")


FILES = [
    path for path in sorted(ROOT.rglob("*.py")) if place(path.relative_to(ROOT).parts) not in APART
]


def test_every_place_has_a_floor() -> None:
    assert {place(path.relative_to(ROOT).parts) for path in FILES} <= set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    here = path.relative_to(ROOT).parts
    for name in imports(path):
        there = name.split(".")[1:]
        if not there or there == ["__version__"]:
            continue
        source, target = place(here), place(there)
        assert target not in APART, f"{path} imports {name}, which is for tests only"
        if source == target == "ops" and len(here) > 2 and len(there) > 1:
            assert here[1] == there[1], f"room {here[1]} imports room {there[1]}"
        if source == target:
            continue
        down = FLOORS[target] < FLOORS[source]
        assert down or (source, target) in SIDEWAYS, f"{path} imports {name}: not downwards"
