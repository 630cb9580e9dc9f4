"""Registration of operators with torch.library, through its public names only.

An opaque operator is what the compiler sees: one call whose outputs have the shapes, dtypes and
strides that its `fake` function gives, whichever back end runs. A differentiable operator is made
of opaque ones by a `torch.autograd.Function`, and the compiler looks through it: a call costs less
than half of one to an opaque operator with `torch.library.register_autograd`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from sidfast.base.backends import Backend, choose

_LIBRARY = torch.library.Library("sidfast", "FRAGMENT")


def define_opaque(
    schema: str, *, backends: Sequence[Backend], fake: Callable[..., Any]
) -> OpOverload:
    """Register a functional operator that back ends serve, without a gradient.

    Args:
        schema: `name(arguments) -> returns`, without defaults; the last argument is `str backend`.
            A leading underscore of the name is no part of the back ends' function.
        backends: rows in order of preference; the choice is made inside the operator.
        fake: maps the schema's arguments to empty outputs; every back end returns the like.
    """
    name = schema[: schema.index("(")]
    function = name.removeprefix("_")

    def run(*args: Any) -> Any:
        *operands, backend = args
        return choose(function, backends, backend, *operands).run(function, *operands)

    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    _LIBRARY.define(schema, tags=tags)
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sidfast::{name}", fake, lib=_LIBRARY)
    return _overload(name)


def define_differentiable(schema: str, kernel: Callable[..., Any]) -> OpOverload:
    """Register an operator made of opaque ones.

    Args:
        schema: `name(arguments) -> returns`, without defaults.
        kernel: takes the schema's arguments; goes through an autograd.Function where needed.
    """
    name = schema[: schema.index("(")]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, kernel, "CompositeImplicitAutograd")
    return _overload(name)


def _overload(name: str) -> OpOverload:
    return getattr(torch.ops.sidfast, name).default
