"""Reference numbers made with the method authors' code; they are not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


def golden_path(name: str) -> Path:
    """Path of a file in the folder `SIDFAST_GOLDENS` names; skips the test where there is none."""
    folder = os.environ.get("SIDFAST_GOLDENS")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip("no goldens")
    return Path(folder) / name


def golden(name: str) -> np.lib.npyio.NpzFile:
    """An opened .npz file of the goldens; skips the test where there are none."""
    return np.load(golden_path(name))
