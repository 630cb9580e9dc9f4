"""Networks as JSON-able constructor arguments and back."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from sidfast.base.errors import InputError
from sidfast.networks.edm.precond import (
    EDMPrecond,
    Preconditioner,
    VEPrecond,
    VPPrecond,
    iDDPMPrecond,
)

PRECONDITIONERS: dict[str, type[Preconditioner]] = {
    cls.__name__: cls for cls in (EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond)
}


def can_rebuild(net: nn.Module) -> bool:
    """Whether `network_config` and `build_network` know this network's class."""
    return PRECONDITIONERS.get(type(net).__name__) is type(net)


def network_config(net: nn.Module) -> dict[str, Any]:
    """Everything that rebuilds `net` but its weights: {"class": name, argument: value, ...}.

    JSON-able: an infinite sigma_max becomes the string "inf". Raises InputError for a network
    that is not one of this package's.
    """
    name = type(net).__name__
    if not isinstance(net, Preconditioner) or not can_rebuild(net):
        raise InputError(
            expected=f"one of {', '.join(PRECONDITIONERS)}",
            got=name,
            fix="build the network with sidfast.networks",
        )
    own = [p.name for p in inspect.signature(type(net)).parameters.values() if p.name != "unet"]
    config = {"class": name, **{k: getattr(net, k) for k in own}, **net.unet_config}
    return {k: _plain(v) for k, v in config.items()}


def build_network(config: Mapping[str, Any]) -> Preconditioner:
    """A freshly initialised network from `network_config`'s dictionary.

    Raises InputError for an unknown class or arguments that it does not take.
    """
    arguments = dict(config)
    name = arguments.pop("class", None)
    if name not in PRECONDITIONERS:
        raise InputError(
            expected=f"a config whose class is one of {', '.join(PRECONDITIONERS)}",
            got=name,
            fix="use the dictionary that network_config made",
        )
    try:
        return PRECONDITIONERS[name](**arguments)
    except TypeError as error:
        raise InputError(
            expected=f"the constructor arguments of {name}",
            got=str(error),
            fix="use the dictionary that network_config made",
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
