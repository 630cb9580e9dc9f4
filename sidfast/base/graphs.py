"""CUDA graphs: what is captured runs again without Python, on the same addresses."""

from __future__ import annotations

import torch


def capturing(device: torch.device) -> bool:
    """Whether what is now launched on `device` is captured into a CUDA graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
