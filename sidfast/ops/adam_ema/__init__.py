"""The optimizer's step: Adam, the average of its parameters and a short copy, in one pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sidfast.base.backends import Backend, choose
from sidfast.ops.adam_ema import contract
from sidfast.ops.adam_ema.contract import Operands, Settings, Update

__all__ = ["BACKENDS", "Operands", "Settings", "Update", "adam_ema"]

BACKENDS = (
    Backend("native", "sidfast.ops.adam_ema._native"),
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
    contract.check(operands)
    run: Update = choose("adam_ema", BACKENDS, backend, operands).run("adam_ema", operands)

    def update(grads: Sequence[Tensor | None], settings: Settings) -> None:
        contract.check_step(operands, grads, settings)
        run(grads, settings)

    return update
