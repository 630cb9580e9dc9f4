"""Addresses of an optimizer's tensors in the memory of a GPU, where its kernels read them.

So one launch serves any number of tensors. The parameters are cut into pieces, one for each block
of threads; a piece never spans two parameters, so that its accesses begin aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor

from sidfast.base import graphs
from sidfast.ops.adam_ema.contract import Operands, dense_alike

ALIGNMENT = 16  # bytes


class Tables:
    """The tables of one optimizer; nothing here waits for the device.

    Attributes:
        count: number of parameters.
        columns: (7, count) int64: elements of each parameter, then addresses of parameters, first
            moments, second moments, steps, averages and copies; 0 where there is none.
        pieces: (2, n) int32: the parameter of each piece, and its place among the parameter's.
        aligned: whether every address, gradients included, suits the widest accesses.
    """

    def __init__(self, operands: Operands, piece: int) -> None:
        params = operands.params
        self.count = len(params)
        self._device = params[0].device if params else operands.skipped.device
        addresses = [
            _addresses(column) if column is not None else [0] * self.count
            for column in (
                params,
                operands.exp_avgs,
                operands.exp_avg_sqs,
                operands.steps,
                operands.ema,
                operands.copies,
            )
        ]
        sizes = [param.numel() for param in params]
        self.columns = self._send(self._host([sizes, *addresses], torch.int64))
        counts = [-(-size // piece) for size in sizes]
        owners = [i for i, pieces in enumerate(counts) for i in repeat(i, pieces)]
        places = [place for pieces in counts for place in range(pieces)]
        self.pieces = self._send(self._host([owners, places], torch.int32))
        # A step is one number, never read in wide accesses.
        self._aligned = all(_aligned(each) for i, each in enumerate(addresses) if i != 3)
        self.aligned = self._aligned
        self._known: list[int] | None = None
        self._gradients = self.columns
        self._spare: Tensor | None = None
        self._captured: list[Tensor] = []

    def gradients(self, grads: Sequence[Tensor | None]) -> Tensor:
        """(count,) int64: the gradients' addresses, 0 for None; sent only when they changed.

        A CUDA graph reads its table in every replay. So a table that one was captured with is kept
        and never written again; and one that was made during a capture is filled by the graph
        itself, from memory of the host that is kept too.
        """
        addresses = _addresses(grads)
        self.aligned = self._aligned and _aligned(addresses)
        capturing = graphs.capturing(self._device)
        if not capturing and self._spare is None:
            self._spare = self._host([0] * self.count, torch.int64)
        if addresses == self._known:
            if capturing:
                self._captured.append(self._gradients)
            return self._gradients
        if not capturing:
            self._known = addresses
            self._gradients = self._send(self._host(addresses, torch.int64))
            return self._gradients
        # Memory of the host cannot always be had during a capture.
        host, self._spare = self._spare, None
        if host is None:
            host = self._host(addresses, torch.int64)
        host.copy_(torch.tensor(addresses, dtype=torch.int64))
        table = self._send(host)
        self._captured += [host, table]
        return table

    def _host(self, values: Sequence[object], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, pin_memory=self._device.type == "cuda")

    def _send(self, host: Tensor) -> Tensor:
        # torch does not hand pinned memory out again before the copy is done.
        return host.to(self._device, non_blocking=True)


def reasons(operands: Operands) -> list[str]:
    """Why a kernel over tables of addresses cannot serve `operands`; empty if it can."""
    found = []
    moments = [
        each for each in (*(operands.exp_avgs or ()), *operands.exp_avg_sqs) if each is not None
    ]
    held = (*operands.params, *moments, *(operands.ema or ()))
    for dtype in sorted({each.dtype for each in held} - {torch.float32}, key=str):
        found.append(f"does not compute in {dtype}")
    if not dense_alike(
        operands.params, operands.exp_avgs, operands.exp_avg_sqs, operands.ema, operands.copies
    ):
        found.append("needs dense parameters, and moments, averages and copies in their strides")
    return found


def number(value: float | Tensor, device: torch.device) -> tuple[float, Tensor | None]:
    """A setting as a float, or else the float32 or float64 tensor on the device that holds it."""
    if not isinstance(value, Tensor):
        return value, None
    if value.device != device:
        return float(value), None
    return 0.0, value if value.dtype in (torch.float32, torch.float64) else value.double()


def _addresses(column: Sequence[Tensor | None]) -> list[int]:
    return [0 if each is None else each.data_ptr() for each in column]


def _aligned(addresses: Sequence[int]) -> bool:
    return not any(address % ALIGNMENT for address in addresses)
