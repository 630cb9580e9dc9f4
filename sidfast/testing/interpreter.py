"""Triton's interpreter, made to round as devices do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def rounding_to_nearest() -> Iterator[None]:
    """Let interpreted kernels round float32 to bfloat16 to nearest even; they cut bits off."""
    from triton import language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def rounded(data: np.ndarray, source: Any, target: Any, mode: Any) -> np.ndarray:
        if (source, target) != (tl.float32, tl.bfloat16):
            return convert(data, source, target, mode)
        values = torch.from_numpy(np.array(data, dtype=np.float32))
        return values.bfloat16().view(torch.uint16).numpy()

    interpreter._convert_float = rounded
    try:
        yield
    finally:
        interpreter._convert_float = convert
