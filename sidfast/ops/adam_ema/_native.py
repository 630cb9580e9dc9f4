"""The optimizer's step in C++ on a CPU, one pass over float32 tensors: csrc/adam_ema/."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from sidfast.base import native
from sidfast.base.errors import BackendError
from sidfast.ops.adam_ema.contract import Operands, Settings, Update


def reasons(op: str, operands: Operands) -> list[str]:
    """Why the native library cannot serve `op`; empty if it can."""
    found = native.reasons()
    params, averages = operands.params, operands.ema or ()
    if not all(param.is_cpu for param in params):
        found.append("serves CPU tensors only")
    moments = [
        each for each in (*(operands.exp_avgs or ()), *operands.exp_avg_sqs) if each is not None
    ]
    for dtype in {each.dtype for each in (*params, *moments, *averages)} - {torch.float32}:
        found.append(f"does not compute in {dtype}")
    columns = (params, operands.exp_avgs, operands.exp_avg_sqs, operands.ema, operands.copies)
    if not all(_dense_alike(params, column) for column in columns if column is not None):
        found.append("needs dense parameters, and moments, averages and copies in their strides")
    return found


def _dense_alike(params: Sequence[Tensor], column: Sequence[Tensor | None]) -> bool:
    """Whether memory holds every tensor's elements without gaps and in its parameter's order."""
    return all(
        each is None or each.stride() == torch.empty_like(param).stride()
        for param, each in zip(params, column, strict=True)
    )


def adam_ema(operands: Operands) -> Update:
    return _Step(operands)


class _Step:
    """A step over columns of addresses, gathered again when a tensor's memory has moved."""

    def __init__(self, operands: Operands) -> None:
        self._operands = operands
        self._movable = [*operands.params, *(operands.ema or ()), *(operands.copies or ())]
        self._gather()

    def _gather(self) -> None:
        operands = self._operands
        self._addresses = list(map(Tensor.data_ptr, self._movable))
        self._strides = [param.stride() for param in operands.params]
        self._ends = array("q", accumulate(param.numel() for param in operands.params))
        self._columns = [
            None if column is None else array("q", map(_address, column))
            for column in (
                operands.params,
                operands.exp_avgs,
                operands.exp_avg_sqs,
                operands.steps,
                operands.ema,
                operands.copies,
            )
        ]
        copy = operands.copies[0].dtype if operands.copies else torch.float32
        self._copy_dtype = native.storage(copy)

    def __call__(self, grads: Sequence[Tensor | None], settings: Settings) -> None:
        if list(map(Tensor.data_ptr, self._movable)) != self._addresses:
            found = reasons("adam_ema", self._operands)
            if found:
                raise BackendError(
                    f"adam_ema: parameters were replaced; native: {', '.join(found)}"
                )
            self._gather()
        # Kept alive until the call is over.
        grads = [
            grad if grad is None or grad.stride() == strides else _restrided(grad, strides)
            for grad, strides in zip(grads, self._strides, strict=True)
        ]
        params, *rest = self._columns
        columns = (params, array("q", map(_address, grads)), *rest)
        native.cpu_library().adam_ema(
            len(grads),
            self._ends.buffer_info()[0],
            *[0 if column is None else column.buffer_info()[0] for column in columns],
            self._copy_dtype,
            float(settings.lr),
            *settings.betas,
            settings.eps,
            settings.weight_decay,
            settings.decoupled,
            float(settings.ema_beta),
            settings.clamp,
            self._operands.skipped.data_ptr(),
            torch.get_num_threads(),
        )
        torch.autograd.graph.increment_version(self._movable)


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _restrided(grad: Tensor, strides: Sequence[int]) -> Tensor:
    return torch.empty_strided(grad.shape, strides).copy_(grad)
