"""Small constant tensors, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.utils._python_dispatch import is_in_torch_dispatch_mode as has_mode

P = ParamSpec("P")


def kept(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """`make`, but a call with the same arguments as one before gives the same tensor.

    Under a compiler or a mode, whose tensors are of no use later, it is made anew.
    """

    @lru_cache(maxsize=64)
    def once(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.inference_mode(False):
            return make(*args, **kwargs)

    @wraps(make)
    def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        if is_compiling() or has_mode():
            return make(*args, **kwargs)
        return once(*args, **kwargs)  # type: ignore[arg-type]

    return call
