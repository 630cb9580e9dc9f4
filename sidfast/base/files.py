"""Files that a crash or a full disk cannot leave half written, and the bytes of tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears under its name only when complete.

    It is written beside it under a temporary name, flushed to disk and renamed. Where that fails
    with an `OSError`, nothing of it is left and what was at `path` before stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        flush([temporary])
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def flush(paths: Iterable[Path]) -> None:
    """Wait until files, or the entries of folders, are on disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def bytes_of(tensor: Tensor) -> memoryview:
    """The elements of a tensor on any device in their logical order, to be hashed."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
