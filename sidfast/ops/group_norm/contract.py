"""Schemas, output shapes and gradients of group normalisation with SiLU.

The reference is a differentiable formula. Every other back end is a module with
`reasons(op, *args) -> list[str]` and these functions, whose positional arguments are those of the
opaque operators, but for the last, `backend`:

    group_norm_silu(x, num_groups, weight, bias, eps, offset, scale, shift, silu)
        -> (y, statistics)
    group_norm_silu_backward(grad, x, num_groups, weight, bias, eps, offset, scale, shift, silu,
                             statistics, need)
        -> gradients of x, weight, bias, offset, scale, shift

`x` is (B, C, ...) with any strides, `grad` likewise; `offset`, `scale` and `shift` are (B, C) or
None, of any floating dtype. y and the gradient of x are like x; `statistics` (2, B, num_groups)
float32 holds means and reciprocal deviations. `need` is six bools; a gradient that is not needed
has size 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sidfast.base.backends import Backend, choose
from sidfast.base.contract import (
    define_differentiable,
    define_opaque,
    quick_apply,
    refuse_transforms,
)
from sidfast.base.errors import InputError
from sidfast.ops.group_norm import reference

_OPERANDS = (
    "Tensor x, SymInt num_groups, Tensor weight, Tensor bias, float eps, Tensor? offset,"
    " Tensor? scale, Tensor? shift, bool silu"
)

ops = SimpleNamespace()  # the room's operators by name, once registered


def outputs(x: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Empty y and statistics."""
    return torch.empty_like(x), x.new_empty((2, x.shape[0], num_groups), dtype=torch.float32)


def gradient_outputs(
    x: Tensor, operands: Sequence[Tensor | None], need: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Empty gradients of x and of `operands`."""
    return torch.empty_like(x), *(
        x.new_empty(0) if operand is None or not needed else torch.empty_like(operand)
        for operand, needed in zip(operands, need[1:], strict=True)
    )


def _fake(x: Tensor, num_groups: int, *args: Any) -> tuple[Tensor, ...]:
    return outputs(x, num_groups)


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    offset: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    silu: bool,
    statistics: Tensor,
    need: Sequence[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    return gradient_outputs(x, (weight, bias, offset, scale, shift), need)


class _GroupNormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        num_groups: int,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        offset: Tensor | None,
        scale: Tensor | None,
        shift: Tensor | None,
        silu: bool,
        backend: str,
    ) -> Tensor:
        y, statistics = ops._group_norm_silu(
            x, num_groups, weight, bias, eps, offset, scale, shift, silu, backend
        )
        ctx.save_for_backward(x, weight, bias, offset, scale, shift, statistics)
        ctx.constants = num_groups, eps, silu, backend
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise InputError(
                expected="a first derivative of group_norm_silu",
                got="backward with create_graph=True",
                fix='leave create_graph out, or pass backend="reference"',
            )
        x, weight, bias, offset, scale, shift, statistics = ctx.saved_tensors
        num_groups, eps, silu, backend = ctx.constants
        wants = ctx.needs_input_grad
        need = (wants[0], wants[2], wants[3], wants[5], wants[6], wants[7])
        operands = (x, num_groups, weight, bias, eps, offset, scale, shift, silu)
        made = ops._group_norm_silu_backward(grad, *operands, statistics, need, backend)
        grads = [each if needed else None for each, needed in zip(made, need, strict=True)]
        return grads[0], None, grads[1], grads[2], None, *grads[3:], None, None


_apply = quick_apply(_GroupNormSiLU)


def register(backends: Sequence[Backend]) -> None:
    """Define the room's operators, served by `backends`."""
    opaque = [row for row in backends if row.name != "reference"]
    ops._group_norm_silu = define_opaque(
        f"_group_norm_silu({_OPERANDS}, str backend) -> (Tensor y, Tensor statistics)",
        backends=opaque,
        fake=_fake,
    )
    ops._group_norm_silu_backward = define_opaque(
        f"_group_norm_silu_backward(Tensor grad, {_OPERANDS}, Tensor statistics, bool[] need,"
        " str backend) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias,"
        " Tensor grad_offset, Tensor grad_scale, Tensor grad_shift)",
        backends=opaque,
        fake=_backward_fake,
    )

    def run(*args: Any) -> Tensor:
        operands = args[:-1]
        if choose("group_norm_silu", backends, args[-1], operands) is reference.group_norm_silu:
            return reference.group_norm_silu(*operands)
        refuse_transforms("group_norm_silu", args)
        if torch.is_grad_enabled():
            return _apply(*args)
        return ops._group_norm_silu(*args)[0]

    ops.group_norm_silu = define_differentiable(
        f"group_norm_silu({_OPERANDS}, str backend) -> Tensor", run, guarded=False
    )


def plain_calls(device: str) -> dict[str, tuple[Any, ...]]:
    """Arguments of an ordinary float32 call of each operator, to ask back ends for `reasons`."""
    x = torch.empty(2, 8, 4, 4, device=device).to(memory_format=torch.channels_last)
    channels = torch.empty(8, device=device)
    return {"group_norm_silu": (x, 2, channels, channels, 1e-5, None, None, None, True)}
