"""What the back ends of the optimizer step share.

A back end is a module with `reasons(op, *args) -> list[str]` and

    adam_ema(operands) -> update

where `update(grads, settings)` makes one step in place; gradients come with the strides of their
parameters, and no tensor's memory has moved since the call. It is no torch.library operator: torch
miscompiles operators that mutate, so it stays outside compiled graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sidfast.base.checks import check_dtype
from sidfast.base.errors import InputError

COPY_DTYPES = (torch.bfloat16, torch.float16)


class Operands(NamedTuple):
    """The tensors of an optimizer, which every step changes; lists in the parameters' order.

    Attributes:
        params: floating, on one device.
        exp_avgs: first moments, like `params`; None where beta1 is 0.
        exp_avg_sqs: second moments, likewise; None for a parameter that never gets a gradient, as
            then in `exp_avgs` and `steps`.
        steps: 0-d float32, updates so far.
        ema: averages, like `params`; None for no average.
        copies: shaped like `params`, all bfloat16 or all float16; None for no copies.
        skipped: 0-d int64, updates left out so far.
    """

    params: list[Tensor]
    exp_avgs: list[Tensor | None] | None
    exp_avg_sqs: list[Tensor | None]
    steps: list[Tensor | None]
    ema: list[Tensor] | None
    copies: list[Tensor] | None
    skipped: Tensor


class Settings(NamedTuple):
    """The numbers of one step. `lr` and `ema_beta` may be 0-d tensors on the parameters' device.

    Attributes:
        weight_decay: of AdamW if `decoupled`, else added to the gradient.
        ema_beta: share of the old average that stays.
        clamp: replace NaN by 0 and infinities by +-1e5 in the gradients instead of skipping.
    """

    lr: float | Tensor
    betas: tuple[float, float]
    eps: float
    weight_decay: float = 0.0
    decoupled: bool = False
    ema_beta: float | Tensor = 0.0
    clamp: bool = False


Update = Callable[[Sequence["Tensor | None"], Settings], None]


def check(operands: Operands) -> None:
    """Raise InputError unless the lists belong together."""
    params = operands.params
    for name in ("exp_avgs", "exp_avg_sqs", "steps", "ema", "copies"):
        column: Sequence[Tensor | None] | None = getattr(operands, name)
        if column is None:
            continue
        if len(column) != len(params):
            raise InputError(
                expected=f"{name} with an entry for each of {len(params)} parameters",
                got=len(column),
                fix="keep the parameters' order",
            )
        for i, (param, each) in enumerate(zip(params, column, strict=True)):
            if each is not None:
                _check_entry(f"{name}[{i}]", param, each, scalar=name == "steps")
    for name, column, allowed in (
        ("steps", operands.steps, (torch.float32,)),
        ("copies", operands.copies or (), COPY_DTYPES),
        ("skipped", (operands.skipped,), (torch.int64,)),
    ):
        for dtype in {each.dtype for each in column if each is not None}:
            check_dtype(name, dtype, allowed)
    if len({copy.dtype for copy in operands.copies or ()}) > 1:
        raise InputError(
            expected="copies of one dtype", got="bfloat16 and float16", fix="choose one of them"
        )


def check_gradients(operands: Operands, grads: Sequence[Tensor | None]) -> None:
    """Raise InputError unless the gradients belong to the operands."""
    params, moments = operands.params, operands.exp_avg_sqs
    if len(grads) != len(params):
        raise InputError(
            expected=f"a gradient or None for each of {len(params)} parameters",
            got=len(grads),
            fix="keep the parameters' order",
        )
    for i, (grad, param, moment) in enumerate(zip(grads, params, moments, strict=True)):
        if grad is None:
            continue
        _check_entry(f"grads[{i}]", param, grad)
        check_dtype(f"grads[{i}]", grad.dtype, (param.dtype,))
        if moment is None:
            raise InputError(
                expected=f"moments of parameter {i}, which has a gradient",
                got="None",
                fix="prepare the update with them",
            )


def dense_alike(params: Sequence[Tensor], *columns: Sequence[Tensor | None] | None) -> bool:
    """Whether memory holds parameters and columns without gaps and in one order of elements."""
    return all(
        each is None or each.stride() == torch.empty_like(param).stride()
        for column in (params, *columns)
        if column is not None
        for param, each in zip(params, column, strict=True)
    )


def _check_entry(name: str, param: Tensor, each: Tensor, *, scalar: bool = False) -> None:
    shape = torch.Size() if scalar else param.shape
    if each.shape != shape or each.device != param.device:
        raise InputError(
            expected=f"{name} of shape {tuple(shape)} on {param.device}",
            got=f"{tuple(each.shape)} on {each.device}",
            fix="make it like its parameter",
        )


def plain_calls(device: str) -> dict[str, tuple[Any, ...]]:
    """Arguments of an ordinary float32 call of each operator, to ask back ends for `reasons`."""
    x, copy = torch.empty(4, 8, device=device), torch.empty(4, 8, device=device).bfloat16()
    step = torch.empty((), device=device)
    skipped = torch.empty((), device=device, dtype=torch.int64)
    return {"adam_ema": (Operands([x], [x], [x], [step], [x], [copy], skipped),)}
