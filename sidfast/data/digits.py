"""The handwritten digits that scikit-learn carries: 1,797 real 8x8 images, no download.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository, 1998 (its test part). Each pixel counts the ink in a 4x4 block, 0...16.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
import torch

from sidfast.base.errors import InputError

Split = Literal["train", "heldout"]

NUM_CLASSES = 10
NUM_TRAIN = 1500
NUM_HELDOUT = 297
SPLIT_SEED = 2404


def digits(split: Split = "train") -> tuple[torch.Tensor, torch.Tensor]:
    """Return one part of the digits: ``(images, labels)``.

    Args:
        split: ``"train"`` (1,500 images) or ``"heldout"`` (297 images that nothing trains on).

    Returns:
        images: (N, 1, 8, 8) float32 in [-1, 1], ink / 8 - 1; fresh tensors on every call.
        labels: (N,) int64 in 0...9.

    The parts are disjoint and the same on every machine: a permutation by NumPy's legacy
    ``RandomState``, whose stream is frozen. Both parts hold images of the same writers, so they
    are exchangeable, which the memorisation test needs.

    Raises:
        InputError: an unknown split, or scikit-learn is not installed.
    """
    if split not in ("train", "heldout"):
        raise InputError(
            expected="split 'train' or 'heldout'", got=repr(split), fix="name one of the two"
        )
    images, labels = _all_digits()
    order = np.random.RandomState(SPLIT_SEED).permutation(len(images))
    chosen = torch.from_numpy(order[:NUM_TRAIN] if split == "train" else order[NUM_TRAIN:])
    return images[chosen], labels[chosen]


@functools.cache
def _all_digits() -> tuple[torch.Tensor, torch.Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            expected="scikit-learn, which carries the digits",
            got="no such package",
            fix="install it with `pip install scikit-learn`",
        ) from error
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.float32).unsqueeze(1) / 8 - 1
    return images, torch.from_numpy(bunch.target).to(torch.int64)
