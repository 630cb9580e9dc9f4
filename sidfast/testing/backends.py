"""Which devices, back ends and instruction sets a test or benchmark can run on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

from sidfast.base import native

# For tests that take a `device`: with what they need and are called.
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
        ],
    ),
]


class Place(NamedTuple):
    """Where a call runs; `isa` is an instruction set of the native CPU back end, or empty."""

    device: str
    backend: str
    isa: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, self))


def places(room: ModuleType, ops: Sequence[str] = (), *, every_isa: bool = False) -> list[Place]:
    """Where ordinary calls of a room's operators are served on this machine.

    Args:
        ops: the operators, back ends' functions by name; all of the room's if empty.
        every_isa: one place for each instruction set of the native CPU back end, instead of one.
    """
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    found = []
    for device in devices:
        calls = room.contract.plain_calls(device)
        for row in room.BACKENDS:
            if any(row.reasons(op, *calls[op]) for op in ops or calls):
                continue
            split = every_isa and (device, row.name) == ("cpu", "native")
            isas = native.cpu_library().available_isas() if split else [""]
            found += [Place(device, row.name, isa) for isa in isas]
    return found


@contextmanager
def instruction_set(isa: str) -> Iterator[None]:
    """Let the native CPU back end use `isa`; empty leaves it alone."""
    if not isa:
        yield
        return
    library = native.cpu_library()
    before = library.isa()
    library.use_isa(isa)
    try:
        yield
    finally:
        library.use_isa(before)


def skip_unless_served(room: ModuleType, backend: str, op: str, *args: object) -> None:
    """Skip the test, with the reasons, where a back end does not serve `op(*args)`."""
    row = next(row for row in room.BACKENDS if row.name == backend)
    reasons = row.reasons(op, *args)
    if reasons:
        pytest.skip(f"{backend}: {', '.join(reasons)}")
