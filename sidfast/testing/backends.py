"""Which (device, back end) pairs a test or benchmark can run on this machine."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch


def serving(room: ModuleType) -> list[tuple[str, str]]:
    """(device, back end) pairs that serve ordinary calls of all of a room's operators here."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [
        (device, row.name)
        for device in devices
        for row in room.BACKENDS
        if not any(row.reasons(op, *a) for op, a in room.contract.plain_calls(device).items())
    ]


def skip_unless_served(room: ModuleType, backend: str, op: str, *args: object) -> None:
    """Skip the test, with the reasons, where a back end does not serve `op(*args)`."""
    row = next(row for row in room.BACKENDS if row.name == backend)
    reasons = row.reasons(op, *args)
    if reasons:
        pytest.skip(f"{backend}: {', '.join(reasons)}")
