"""The optimizer's step: Adam, the average of its parameters and a short copy, in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sidfast.base.backends import Backend, choose
from sidfast.base.errors import InputError
from sidfast.ops.adam_ema import contract
from sidfast.ops.adam_ema.contract import Operands, Settings, Update

__all__ = ["BACKENDS", "Operands", "Settings", "Update", "adam_ema"]

BACKENDS = (
    Backend("native", "sidfast.ops.adam_ema._native"),
    Backend("triton", "sidfast.ops.adam_ema._triton"),
    Backend("cuda", "sidfast.ops.adam_ema._cuda"),
    Backend("torch", "sidfast.ops.adam_ema._torch"),
    Backend("reference", "sidfast.ops.adam_ema.reference"),
)


def adam_ema(operands: Operands, backend: str = "auto") -> Update:
    """Prepare Adam (arXiv 1412.6980) or AdamW (1711.05101) with an average, as one call per step.

    With p = parameter, g = gradient, m and v = moments, e = average, t = step, counted from 1,
    and w = weight_decay, `update(grads, settings)` does to every parameter at once, in place::

        g <- g + w p                    or, decoupled,  p <- p (1 - lr w)
        m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2
        p <- p - lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps)
        e <- p + ema_beta (e - p),      copy <- p, rounded

    Where any gradient holds a NaN or an infinity nothing changes but `operands.skipped`, by one;
    `settings.clamp` replaces such values in the gradients instead. A parameter whose gradient is
    None is averaged and copied only. Nothing waits for a device, except in the reference.

    Args:
        operands: the tensors, which the update keeps.
        backend: a name from `BACKENDS`, or "auto".

    Returns:
        update(grads, settings): `grads` in the parameters' order, each like its parameter or None.

    Raises:
        InputError: operands that do not belong together; by the update, gradients that do not
            belong to them.
        BackendError: the back end asked for cannot serve the call.
    """
    return _Update(operands, backend)


class _Update:
    """Checks every step's arguments, quickly where they are like the last one's."""

    def __init__(self, operands: Operands, backend: str) -> None:
        self._operands, self._backend = operands, backend
        # A module that moves exchanges the memory of its parameters.
        self._movable = [*operands.params, *(operands.ema or ()), *(operands.copies or ())]
        self._prepare()

    def _prepare(self) -> None:
        contract.check(self._operands)
        prepare = choose("adam_ema", BACKENDS, self._backend, (self._operands,))
        self._run: Update = prepare(self._operands)
        self._addresses = list(map(Tensor.data_ptr, self._movable))
        self._passed: list[tuple[object, ...] | None] = []

    def __call__(self, grads: Sequence[Tensor | None], settings: Settings) -> None:
        if self._operands.exp_avgs is None and settings.betas[0] != 0:
            raise InputError(
                expected="operands with exp_avgs where beta1 is not 0",
                got=f"beta1={settings.betas[0]}",
                fix="prepare the update with first moments",
            )
        if list(map(Tensor.data_ptr, self._movable)) != self._addresses:
            self._prepare()
        kinds = [None if g is None else (g.shape, g.dtype, g.stride()) for g in grads]
        if kinds != self._passed:
            contract.check_gradients(self._operands, grads)
            grads = list(map(_restrided, grads, self._operands.params))
            self._passed = [None if g is None else (g.shape, g.dtype, g.stride()) for g in grads]
        self._run(grads, settings)
        torch.autograd.graph.increment_version(self._movable)


def _restrided(grad: Tensor | None, param: Tensor) -> Tensor | None:
    if grad is None or grad.stride() == param.stride():
        return grad
    return torch.empty_strided(
        param.shape, param.stride(), dtype=grad.dtype, device=grad.device
    ).copy_(grad)
