"""What the Triton back ends share; importing this imports triton."""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

# Read when a kernel is decorated, that is when its module is imported.
INTERPRETED = bool(triton.knobs.runtime.interpret)
OLDEST = (8, 0)


def reasons(*tensors: Tensor) -> list[str]:
    """Why Triton cannot run on the tensors' device; empty if it can.

    With `TRITON_INTERPRET=1` in the environment, kernels are interpreted instead of compiled and
    serve CPU tensors too: slow, for tests.
    """
    if not all(tensor.is_cuda for tensor in tensors):
        interpreted = INTERPRETED and all(tensor.is_cpu for tensor in tensors)
        return [] if interpreted else ["serves CUDA tensors only"]
    capability = _capability(tensors[0].device)
    if capability < OLDEST:
        return ["needs compute capability {}.{}, got {}.{}".format(*OLDEST, *capability)]
    return []


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
