"""Runs every operator test that takes `device` or `backend` in each place that serves here.

A test file names the room it tests: `ROOM = sidfast.ops.random`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sidfast.testing import cuda_emulator
from sidfast.testing.backends import Place, instruction_set, places
from sidfast.testing.interpreter import rounding_to_nearest

EMULATED = Place("cpu", "cuda", "emulated")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        each = places(metafunc.module.ROOM, every_isa="every_isa" in metafunc.fixturenames)
        if any(row.name == EMULATED.backend for row in metafunc.module.ROOM.BACKENDS):
            each.append(EMULATED)
        marked = [
            pytest.param(place, marks=pytest.mark.gpu if place.device == "cuda" else ())
            for place in each
        ]
        metafunc.parametrize("place", marked, indirect=True, ids=list(map(str, each)))


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    emulated = request.param == EMULATED
    if emulated and cuda_emulator.missing():
        pytest.skip(cuda_emulator.missing())
    with cuda_emulator.emulated() if emulated else instruction_set(request.param.isa):
        yield request.param


@pytest.fixture
def every_isa() -> None:
    """Runs the tests that use it once for each instruction set of the native CPU back end."""


@pytest.fixture
def device(place: Place) -> str:
    return place.device


@pytest.fixture
def backend(place: Place) -> str:
    return place.backend


@pytest.fixture(scope="session", autouse=os.environ.get("TRITON_INTERPRET") == "1")
def interpreter() -> Iterator[None]:
    """Triton's, where kernels are interpreted: see tests/ops/test_triton.py."""
    with rounding_to_nearest():
        yield
