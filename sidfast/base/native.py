"""The compiled CPU library, loaded when first asked for and after torch, whose OpenMP it shares."""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Any

import torch

from sidfast.base.errors import BackendError, InputError

MODULE = "sidfast.base._cpu"
ISA_VARIABLE = "SIDFAST_CPU_ISA"


@cache
def _load() -> tuple[Any, str]:
    """The module, or None and why not."""
    try:
        library = importlib.import_module(MODULE)
    except ModuleNotFoundError:
        return None, (
            "the native CPU library was not built: install a C++17 compiler, then install sidfast"
            " again with `pip install -v` to see the build"
        )
    except ImportError as error:
        return None, f"the native CPU library does not load: {error}"
    wanted = os.environ.get(ISA_VARIABLE, "")
    if wanted:
        available = library.available_isas()
        if wanted not in available:
            raise InputError(
                expected=f"{ISA_VARIABLE} to be one that this CPU has: {', '.join(available)}",
                got=repr(wanted),
                fix=f"unset {ISA_VARIABLE} for the best of them",
            )
        library.use_isa(wanted)
    return library, ""


def reasons() -> list[str]:
    """Why the native CPU library is not available; empty if it is.

    Raises:
        InputError: `SIDFAST_CPU_ISA` names an instruction set that this CPU does not have.
    """
    library, failure = _load()
    return [] if library is not None else [failure]


@cache
def cpu_library() -> Any:
    """The compiled module `sidfast.base._cpu`.

    Raises:
        BackendError: it was not built or does not load.
        InputError: as `reasons`.
    """
    library, failure = _load()
    if library is None:
        raise BackendError(failure)
    return library


@cache
def storage(dtype: torch.dtype) -> Any:
    """The library's name of a storage type; AttributeError if it has none."""
    return getattr(cpu_library().Dtype, str(dtype).removeprefix("torch."))
