"""Work side by side gives what work one after the other gives."""

from __future__ import annotations

import threading

import pytest
import torch

from sidfast.base.lanes import side_by_side

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_order_threads_and_gradient_mode(two_threads) -> None:
    def look(i: int) -> tuple[int, bool, int, str]:
        name = threading.current_thread().name
        return i * i, torch.is_grad_enabled(), torch.get_num_threads(), name

    with torch.no_grad():
        seen = side_by_side(look, range(5), CPU)
    assert [square for square, *_ in seen] == [0, 1, 4, 9, 16]
    assert not any(gradients for _, gradients, *_ in seen)
    assert {threads for _, _, threads, _ in seen} == {1}
    assert all(name.startswith("sidfast-lane") for *_, name in seen)
    assert torch.get_num_threads() == 2
    assert all(gradients for _, gradients, *_ in side_by_side(look, range(2), CPU))


def test_one_thread_works_in_place() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = threading.current_thread()
        threads = side_by_side(lambda _: threading.current_thread(), range(3), CPU)
        assert threads == [here] * 3
    finally:
        torch.set_num_threads(before)


def test_errors_come_out(two_threads) -> None:
    def fail(i: int) -> None:
        raise ValueError(f"piece {i}")

    with pytest.raises(ValueError, match="piece 0"):
        side_by_side(fail, range(3), CPU)
    assert torch.get_num_threads() == 2
