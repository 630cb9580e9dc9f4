"""The optimizer's step in C++ on a CPU, one pass over float32 tensors: csrc/adam_ema/."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from sidfast.base import native
from sidfast.ops.adam_ema.contract import Operands, Settings, Update, dense_alike


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
    if not dense_alike(
        params, operands.exp_avgs, operands.exp_avg_sqs, operands.ema, operands.copies
    ):
        found.append("needs dense parameters, and moments, averages and copies in their strides")
    return found


def adam_ema(operands: Operands) -> Update:
    return _Step(operands)


class _Step:
    """A step over columns of addresses, of tensors that it keeps."""

    def __init__(self, operands: Operands) -> None:
        self._operands = operands
        self._ends = array("q", accumulate(map(Tensor.numel, operands.params)))
        self._params = _addresses(operands.params)
        columns = (
            operands.exp_avgs,
            operands.exp_avg_sqs,
            operands.steps,
            operands.ema,
            operands.copies,
        )
        self._others = [None if column is None else _addresses(column) for column in columns]
        copy = operands.copies[0].dtype if operands.copies else torch.float32
        self._copy_dtype = native.storage(copy)

    def __call__(self, grads: Sequence[Tensor | None], settings: Settings) -> None:
        columns = (self._ends, self._params, _addresses(grads), *self._others)
        native.cpu_library().adam_ema(
            len(grads),
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


def _addresses(column: Sequence[Tensor | None]) -> array[int]:
    return array("q", [0 if each is None else each.data_ptr() for each in column])
