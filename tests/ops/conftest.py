"""Runs every operator test that takes `device` or `backend` in each place that serves here.

A test file names the room it tests, `ROOM = sidfast.ops.random`, and which of its operators, if
not all: `OPS`, names of back ends' functions.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sidfast.testing import cuda_emulator
from sidfast.testing.backends import Place, instruction_set, places
from sidfast.testing.interpreter import looking_up_the_language_once, rounding_to_nearest
from sidfast.testing.tensors import INTERPRETED

EMULATED = Place("cpu", "cuda", "emulated")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        room, ops = metafunc.module.ROOM, getattr(metafunc.module, "OPS", ())
        each = places(room, ops, every_isa="every_isa" in metafunc.fixturenames)
        for row in room.BACKENDS:
            module, _ = row.loaded
            if row.name == EMULATED.backend and all(hasattr(module, op) for op in ops):
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


@pytest.fixture(scope="session", autouse=INTERPRETED)
def interpreter() -> Iterator[None]:
    """Triton's, where kernels are interpreted: see tests/ops/test_triton.py."""
    with rounding_to_nearest(), looking_up_the_language_once():
        yield
