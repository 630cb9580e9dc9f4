"""How this process keeps the memory it frees."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_MIB = 2**20


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks of up to 32 MiB instead of returning their pages.

    A training step on a CPU frees and asks again for the same activations; by default glibc hands
    them back to the kernel, and every step pays for fresh pages anew. The setting holds for the
    whole process; its resident memory stays at its peak.

    Returns:
        Whether this C library knows the setting; elsewhere nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(option, value)
        for option, value in (
            (_MMAP_THRESHOLD, 32 * _MIB),
            (_TRIM_THRESHOLD, 2**31 - 1),
            (_TOP_PAD, 16 * _MIB),
        )
    )
