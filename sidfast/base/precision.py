"""float32 that is float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Switch TF32 off for convolutions and matrix products on a CUDA device, then back.

    torch allows it in convolutions by default; right after the start the difference of teacher and
    fake score is a thousandth of either, and TF32's 10 bits of mantissa drown it.
    """
    if device.type != "cuda":
        yield
        return
    convolutions = torch.backends.cudnn.allow_tf32
    products = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products
