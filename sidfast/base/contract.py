"""Registration of an operator: schema, shape function, choice of back end, gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from sidfast.base.backends import Backend, choose

NAMESPACE = "sidfast"


def define_operator(
    schema: str,
    *,
    backends: Sequence[Backend],
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> OpOverload:
    """Register a functional operator with torch.library and return its overload.

    The back end is chosen inside the operator, so the compiler sees one opaque call whose outputs
    have the shapes, dtypes and strides that `fake` gives, whichever back end runs.

    Args:
        schema: `name(arguments) -> returns` without a namespace, without defaults; the last
            argument is `str backend`.
        backends: rows in order of preference.
        fake: maps the schema's arguments to empty outputs; every back end returns the like.
        setup_context, backward: the gradient, as `torch.library.register_autograd` takes them.
    """
    name, arguments = schema[: schema.index("(")], schema[schema.index("(") :]
    qualified = f"{NAMESPACE}::{name}"
    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    torch.library.define(qualified, arguments, tags=tags)

    def run(*args: Any) -> Any:
        *operands, backend = args
        return choose(name, backends, backend, *operands).run(name, *operands)

    torch.library.impl(qualified, "default", run)
    torch.library.register_fake(qualified, fake)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context)
    return getattr(getattr(torch.ops, NAMESPACE), name).default
