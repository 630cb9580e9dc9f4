"""The digits: form, range, and a split that never moves."""

from __future__ import annotations

import hashlib
import sys

import pytest
import torch

from sidfast.base.errors import InputError
from sidfast.data import digits
from sidfast.data import digits as digits_door

pytest.importorskip("sklearn")

SHA256 = {
    "train": "48443627f2929ffdaa6eadf0ae6cc3223e261e442853613f8d82ac5e344392b6",
    "heldout": "6adb54780243a2e4aa11cf991cbab919564e38ebe5a96ef8cd6373d56628fc6d",
}


@pytest.mark.parametrize(("split", "count"), [("train", 1500), ("heldout", 297)])
def test_form(split: str, count: int) -> None:
    images, labels = digits(split)
    assert images.shape == (count, 1, 8, 8) and images.dtype == torch.float32
    assert labels.shape == (count,) and labels.dtype == torch.int64
    assert images.min() == -1 and images.max() == 1
    assert torch.equal((images + 1) * 8, ((images + 1) * 8).round())
    assert labels.bincount(minlength=10).min() > 0.07 * count


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_split_is_the_same_everywhere(split: str) -> None:
    images, labels = digits(split)
    data = images.numpy().tobytes() + labels.numpy().tobytes()
    assert hashlib.sha256(data).hexdigest() == SHA256[split]


def test_parts_are_disjoint() -> None:
    train, heldout = digits("train")[0], digits("heldout")[0]
    assert torch.cdist(heldout.flatten(1), train.flatten(1)).min() > 0.5


def test_changing_the_result_changes_nothing_else() -> None:
    digits("train")[0].zero_()
    assert digits("train")[0].abs().max() == 1


def test_unknown_split() -> None:
    with pytest.raises(InputError, match="'train' or 'heldout'"):
        digits("test")  # type: ignore[arg-type]


def test_missing_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[digits_door.__module__]
    module._all_digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        digits("train")
