"""Triton's interpreter, made to round as devices do, and quicker."""

from __future__ import annotations

import inspect
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


@contextmanager
def looking_up_the_language_once() -> Iterator[None]:
    """Let interpreted calls of functions take half the time.

    Each makes `triton.language` the interpreter's, and looks through all of it for what to change.
    """
    from triton import language as tl
    from triton.runtime import interpreter

    patch, changeable = interpreter._patch_builtin, {}
    for place in (tl, tl.core, tl.math, tl.tensor, tl.core.tensor_descriptor_base):
        members = inspect.getmembers(place, tl.core.is_builtin)
        changeable[place] = [name for name, _ in members]

    def patched(place: Any, builder: Any, scope: Any) -> None:
        for name in changeable[place]:
            member = getattr(place, name)
            if tl.core.is_builtin(member):
                interpreter._patch_attr(place, name, member, builder, scope)

    interpreter._patch_builtin = patched
    try:
        yield
    finally:
        interpreter._patch_builtin = patch
