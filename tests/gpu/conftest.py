"""What only a GPU can show; elsewhere these tests are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(
                pytest.mark.skipif(
                    not torch.cuda.is_available(), reason="torch finds no CUDA device"
                )
            )
