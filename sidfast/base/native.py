"""The compiled CPU library, loaded when first asked for and after torch, whose OpenMP it shares."""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType
from typing import Any

import torch

from sidfast.base.errors import BackendError, InputError

ISA_VARIABLE = "SIDFAST_CPU_ISA"


@cache
def _load() -> tuple[ModuleType | None, str]:
    try:
        from sidfast.base import _cpu  # type: ignore[attr-defined]
    except ModuleNotFoundError:
        return None, (
            "the native CPU library was not built: install a C++17 compiler and run"
            " `pip install -v .` again to see why"
        )
    except ImportError as error:
        return None, f"the native CPU library does not load: {error}"
    wanted = os.environ.get(ISA_VARIABLE, "")
    if wanted:
        available = _cpu.available_isas()
        if wanted not in available:
            raise InputError(
                expected=f"{ISA_VARIABLE} to be one of {', '.join(available)}, which this CPU has",
                got=repr(wanted),
                fix=f"unset {ISA_VARIABLE} to take the best",
            )
        _cpu.use_isa(wanted)
    return _cpu, ""


def reasons() -> list[str]:
    """Why the native CPU library is not available; empty if it is.

    Raises:
        InputError: `SIDFAST_CPU_ISA` names an instruction set that this CPU does not have.
    """
    library, failure = _load()
    return [] if library is not None else [failure]


def cpu_library() -> Any:
    """The module `sidfast.base._cpu`.

    Raises:
        BackendError: it was not built or does not load.
        InputError: as `reasons`.
    """
    library, failure = _load()
    if library is None:
        raise BackendError(failure)
    return library


def storage(dtype: torch.dtype) -> Any:
    """The library's name of a storage type, or None if it has none."""
    return getattr(cpu_library().Dtype, str(dtype).removeprefix("torch."), None)
