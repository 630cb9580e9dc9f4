"""The optimizer's step in CUDA, float32, three launches: csrc/adam_ema/."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sidfast.base import cuda
from sidfast.ops.adam_ema import _tables
from sidfast.ops.adam_ema.contract import Operands, Settings, Update


def reasons(op: str, operands: Operands) -> list[str]:
    """Why the CUDA library cannot serve `op`; empty if it can."""
    return cuda.reasons(operands.skipped, *operands.params) + _tables.reasons(operands)


def adam_ema(operands: Operands) -> Update:
    return _Step(operands)


class _Step:
    """A step over tables of addresses, of tensors that it keeps."""

    def __init__(self, operands: Operands) -> None:
        library = cuda.library()
        self._operands = operands
        self._tables = _tables.Tables(operands, library.adam_piece)
        size = library.adam_workspace(self._tables.count)
        self._workspace = operands.skipped.new_empty(size, dtype=torch.float32)
        self._copy_dtype = cuda.storage(
            operands.copies[0].dtype if operands.copies else torch.bfloat16
        )

    def __call__(self, grads: Sequence[Tensor | None], settings: Settings) -> None:
        tables, skipped = self._tables, self._operands.skipped
        lr, lr_tensor = _tables.number(settings.lr, skipped.device)
        ema_beta, ema_beta_tensor = _tables.number(settings.ema_beta, skipped.device)
        cuda.library().adam_ema(
            tables.columns.data_ptr(),
            tables.gradients(grads).data_ptr(),
            tables.count,
            tables.pieces.data_ptr(),
            tables.pieces.shape[1],
            self._copy_dtype,
            lr,
            *_address(lr_tensor),
            *settings.betas,
            settings.eps,
            settings.weight_decay,
            settings.decoupled,
            ema_beta,
            *_address(ema_beta_tensor),
            settings.clamp,
            skipped.data_ptr(),
            self._workspace.data_ptr(),
            *cuda.where(skipped),
        )


def _address(number: Tensor | None) -> tuple[int, bool]:
    return (0, False) if number is None else (number.data_ptr(), number.dtype == torch.float64)
