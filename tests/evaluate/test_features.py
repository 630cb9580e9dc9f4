"""The shipped classifier is what its record says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sidfast.base.errors import InputError
from sidfast.data import digits
from sidfast.evaluate import DigitsClassifier, digits_classifier
from sidfast.evaluate.features import DIGITS_WEIGHTS


def test_accuracy_is_the_recorded_one(net: DigitsClassifier, heldout: Tensor) -> None:
    record = json.loads(DIGITS_WEIGHTS.with_suffix(".json").read_text())
    labels = digits("heldout")[1]
    accuracy = (net(heldout).argmax(1) == labels).double().mean().item()
    assert accuracy >= 0.98
    assert accuracy == pytest.approx(record["test_accuracy"], abs=0.004)
    assert sum(p.numel() for p in net.parameters()) == record["parameters"]


def test_features_feed_the_head(net: DigitsClassifier, heldout: Tensor) -> None:
    features = net.features(heldout[:5])
    assert features.shape == (5, 64)
    torch.testing.assert_close(net.logits(features), net(heldout[:5]))


def test_frozen_and_in_eval_mode(net: DigitsClassifier) -> None:
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())


def test_bad_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="FileNotFoundError"):
        digits_classifier(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(DIGITS_WEIGHTS.read_bytes()[:1000])
    with pytest.raises(InputError, match="train them with"):
        digits_classifier(tmp_path / "cut.safetensors")
