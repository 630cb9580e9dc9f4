"""Real digits, the classifier that sees them, and the yardstick built from both."""

from __future__ import annotations

import pytest
from torch import Tensor

from sidfast.data import digits
from sidfast.evaluate import DigitsClassifier, Yardstick, digits_classifier


@pytest.fixture(scope="session")
def train() -> Tensor:
    pytest.importorskip("sklearn")
    return digits("train")[0]


@pytest.fixture(scope="session")
def heldout() -> Tensor:
    pytest.importorskip("sklearn")
    return digits("heldout")[0]


@pytest.fixture(scope="session")
def net() -> DigitsClassifier:
    pytest.importorskip("safetensors")
    return digits_classifier()


@pytest.fixture(scope="session")
def yardstick(train: Tensor, heldout: Tensor, net: DigitsClassifier) -> Yardstick:
    return Yardstick(train, heldout, net)
