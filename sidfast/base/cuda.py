"""The compiled CUDA library, loaded when first asked for, which needs neither GPU nor driver."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sidfast.base.errors import BackendError

MODULE = "sidfast.base._cuda"


@cache
def _load() -> tuple[Any, str]:
    """The module, or None and why not."""
    try:
        return importlib.import_module(MODULE), ""
    except ModuleNotFoundError:
        return None, (
            "the CUDA library was not built: install CUDA's compiler nvcc, then install sidfast"
            " again with SIDFAST_CUDA=1 and `pip install -v` to see the build"
        )
    except ImportError as error:
        return None, f"the CUDA library does not load: {error}"


def missing() -> list[str]:
    """Why the CUDA library is not available, whatever the devices; empty if it is."""
    library, failure = _load()
    return [] if library is not None else [failure]


def library() -> Any:
    """The compiled module `sidfast.base._cuda`.

    Raises:
        BackendError: it was not built or does not load.
    """
    library, failure = _load()
    if library is None:
        raise BackendError(failure)
    return library


def architectures() -> list[str]:
    """What the library holds: sm_XY is machine code, compute_XY is PTX for later devices."""
    return library().architectures.split()


def build() -> str:
    """What the library was built with and for, in words."""
    runtime, _ = library().versions()
    return f"CUDA {_version(runtime)}, {', '.join(architectures())}"


def reasons(first: Tensor, *others: Tensor) -> list[str]:
    """Why the CUDA library cannot serve these tensors; empty if it can.

    Tensors on a CPU never load it.
    """
    if not first.is_cuda:
        return ["serves CUDA tensors only"]
    found = missing() or [*_unfit(first.device)]
    if any(other.device != first.device for other in others):
        found.append("serves tensors of one device only")
    return found


def where(x: Tensor) -> tuple[int, int]:
    """Stream and device, with which every call into the library ends."""
    index = x.get_device()
    return torch.cuda.current_stream(index).cuda_stream, index


@cache
def _unfit(device: torch.device) -> list[str]:
    """Why the library does not run on a device that torch can use."""
    found = []
    runtime, driver = library().versions()
    if driver // 1000 < runtime // 1000:
        found.append(
            f"built with CUDA {_version(runtime)}, but the driver serves up to {_version(driver)}"
        )
    capability = torch.cuda.get_device_capability(device)
    if not any(_serves(architecture, capability) for architecture in architectures()):
        name = "sm_{}{}".format(*capability)
        found.append(f"built for {', '.join(architectures())}, but {device} is {name}")
    return found


def _serves(architecture: str, capability: tuple[int, int]) -> bool:
    kind, number = architecture.split("_")
    built = divmod(int(number), 10)
    return built <= capability and (kind == "compute" or built[0] == capability[0])


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


@cache
def storage(dtype: torch.dtype) -> Any:
    """The library's name of a storage type; AttributeError if it has none."""
    return getattr(library().Dtype, str(dtype).removeprefix("torch."))
