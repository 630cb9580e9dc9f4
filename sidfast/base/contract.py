"""Registration of operators with torch.library, and the short way past its dispatcher.

An opaque operator is what the compiler sees: one call whose outputs have the shapes, dtypes and
strides that its `fake` function gives, whichever back end runs. A differentiable operator is made
of opaque ones by a `torch.autograd.Function`, and the compiler looks through it: a call costs less
than half of one to an opaque operator with `torch.library.register_autograd`.

The dispatcher takes several times as long as a small kernel. So the callables made here go through
it only where somebody would see the difference: under a compiler or a mode, and for tensors that
are not plain ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._C import _are_functorch_transforms_active as is_transforming
from torch._C import _functorch
from torch._C import _is_tracing as is_tracing
from torch._C._autograd import _get_current_graph_task_keep_graph
from torch._ops import OpOverload
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.overrides import has_torch_function_unary
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from sidfast.base.backends import Backend, choose, serving
from sidfast.base.errors import InputError

_LIBRARY = torch.library.Library("sidfast", "FRAGMENT")

_PLAIN = {
    *(torch.Tensor, torch.nn.Parameter, torch.dtype, torch.memory_format, torch.Size),
    *(bool, int, float, str, list, tuple, type(None)),
}


def define_opaque(
    schema: str, *, backends: Sequence[Backend], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Register a functional operator that back ends serve, without a gradient.

    Args:
        schema: `name(arguments) -> returns`, without defaults; the last argument is `str backend`.
            A leading underscore of the name is no part of the back ends' function.
        backends: rows in order of preference; the choice is made inside the operator.
        fake: maps the schema's arguments to empty outputs; every back end returns the like.

    Returns:
        the operator, to be called with positional arguments.
    """
    name = schema[: schema.index("(")]
    function = name.removeprefix("_")

    def run(*args: Any) -> Any:
        operands = args[:-1]
        return choose(function, backends, args[-1], operands)(*operands)

    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    _LIBRARY.define(schema, tags=tags)
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sidfast::{name}", fake, lib=_LIBRARY)
    overload = _overload(name)

    def call(*args: Any) -> Any:
        if unobserved(args):
            operands = args[:-1]
            if serve := serving(function, backends, args[-1], operands):
                try:
                    return serve(*operands)
                except RuntimeError:
                    pass  # perhaps a tensor of torch.func, which looks plain: see what torch says
        return overload(*args)

    return call


def define_differentiable(
    schema: str, kernel: Callable[..., Any], *, guarded: bool = True
) -> Callable[..., Any]:
    """Register an operator made of opaque ones.

    Args:
        schema: `name(arguments) -> returns`, without defaults.
        kernel: takes the schema's arguments; goes through an autograd.Function where needed.
        guarded: refuse what `refuse_transforms` does before the kernel is called.

    Returns:
        the operator, to be called with positional arguments.
    """
    name = schema[: schema.index("(")]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, kernel, "CompositeImplicitAutograd")
    overload = _overload(name)

    def call(*args: Any) -> Any:
        if is_compiling():
            return overload(*args)
        if guarded and (is_transforming() or forward_ad._current_level >= 0):
            refuse_transforms(name, args)
        return kernel(*args)

    return call


def quick_apply(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """`function.apply`, past the Python in front of it wherever that has nothing to do.

    It is there for torch.func, and costs as much as what follows.
    """
    bare = super(torch.autograd.Function, function).apply  # type: ignore[misc]

    def apply(*args: Any) -> Any:
        if is_compiling() or is_transforming():
            return function.apply(*args)
        return bare(*args)

    return apply


def refuse_transforms(name: str, args: Sequence[Any]) -> None:
    """Refuse a derivative that the operator's autograd.Function would not give.

    Under `torch.vmap` an operator is a loop over calls, without a trace for autograd; forward-mode
    derivatives would be lost as silently.

    Raises:
        InputError: an argument needs a gradient under `torch.vmap`, or a derivative by `torch.func`
            or in forward mode.
    """
    if (is_transforming() or forward_ad._current_level >= 0) and any(
        _is_differentiated(arg) for arg in args if isinstance(arg, torch.Tensor)
    ):
        raise InputError(
            expected=f"{name} differentiated by torch.autograd alone",
            got="a derivative by torch.func or in forward mode, or a gradient under torch.vmap",
            fix="call backward() or torch.autograd.grad, and loop over the calls yourself",
        )


def _is_differentiated(tensor: torch.Tensor) -> bool:
    inside = is_transforming()
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_gradtrackingtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    if inside and tensor.requires_grad and torch.is_grad_enabled():
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


def unobserved(args: Sequence[Any]) -> bool:
    """Whether plain eager execution is all that a call with `args`, a tensor first, meets."""
    return (
        not is_compiling()
        and not is_in_torch_dispatch_mode()
        and _PLAIN.issuperset(map(type, args))
        and not has_torch_function_unary(args[0])
        and not is_tracing()
    )


def has_storage(tensor: torch.Tensor) -> bool:
    """Whether there are numbers behind a tensor; not so where a backward pass is batched."""
    return torch._C._has_storage(tensor)


def keeps_graph() -> bool:
    """Whether the backward pass under way leaves its graph for another one (retain_graph)."""
    return _get_current_graph_task_keep_graph()


def _overload(name: str) -> OpOverload:
    return getattr(torch.ops.sidfast, name).default
