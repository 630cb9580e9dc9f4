"""Runs every operator test that takes `device` and `backend` on each pair that serves here."""

from __future__ import annotations

import pytest

from sidfast.testing.backends import serving


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    room = getattr(metafunc.module, "ROOM", None)
    if room is not None and {"device", "backend"} <= set(metafunc.fixturenames):
        pairs = serving(room)
        metafunc.parametrize(("device", "backend"), pairs, ids=["-".join(pair) for pair in pairs])
