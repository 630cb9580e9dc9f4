"""torch's fused Adam and its multi-tensor functions; nothing in a step waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from sidfast.ops.adam_ema.contract import Operands, Settings, Update, dense_alike

_FUSED = ("cpu", "cuda", "mps", "xpu")


def reasons(op: str, operands: Operands) -> list[str]:
    """Why torch's fused Adam cannot serve `op`; empty if it can."""
    params = operands.params
    kinds = {param.device.type for param in params} - set(_FUSED)
    found = [f"torch has no fused Adam for {kind} tensors" for kind in sorted(kinds)]
    if not dense_alike(params, operands.exp_avgs, operands.exp_avg_sqs):
        found.append("needs dense parameters, and moments in their strides")
    return found


def adam_ema(operands: Operands) -> Update:
    return partial(_update, operands)


@torch.no_grad()
def _update(operands: Operands, grads: Sequence[Tensor | None], settings: Settings) -> None:
    given = [grad for grad in grads if grad is not None]
    found = _condition(given, settings.clamp, operands.skipped)
    chosen = [i for i, grad in enumerate(grads) if grad is not None]
    adam(
        _chosen(operands.params, chosen),
        given,
        _first_moments(operands, given, chosen, settings),
        _chosen(operands.exp_avg_sqs, chosen),
        [],
        _chosen(operands.steps, chosen),
        fused=True,
        found_inf=found,
        amsgrad=False,
        maximize=False,
        lr=settings.lr,
        beta1=settings.betas[0],
        beta2=settings.betas[1],
        weight_decay=settings.weight_decay,
        decoupled_weight_decay=settings.decoupled,
        eps=settings.eps,
    )
    operands.skipped.add_(found.to(torch.int64))
    if operands.ema:
        fresh = torch.where(found > 0, 0.0, 1 - settings.ema_beta).to(operands.ema[0].dtype)
        torch._foreach_lerp_(operands.ema, operands.params, [fresh] * len(operands.ema))
    if operands.copies:
        torch._foreach_copy_(operands.copies, operands.params)


def _condition(grads: list[Tensor], clamp: bool, skipped: Tensor) -> Tensor:
    """Clamp if asked; return 1.0 where the update must be left out, else 0.0 (0-d)."""
    if not grads:
        return skipped.new_zeros((), dtype=torch.float32)
    if clamp:
        for grad in grads:
            torch.nan_to_num(grad, nan=0.0, posinf=1e5, neginf=-1e5, out=grad)
        return skipped.new_zeros((), dtype=torch.float32)
    filled = [grad for grad in grads if grad.numel()]
    largest = torch.nn.utils.get_total_norm(filled, norm_type=float("inf"))
    return (~torch.isfinite(largest)).to(torch.float32)


def _first_moments(
    operands: Operands, grads: list[Tensor], chosen: list[int], settings: Settings
) -> list[Tensor]:
    """With beta1 = 0 the new moment is the gradient, decayed: it may overwrite what it equals."""
    if operands.exp_avgs is not None:
        return _chosen(operands.exp_avgs, chosen)
    if settings.weight_decay and not settings.decoupled:
        return [grad.clone() for grad in grads]
    return grads


def _chosen(column: Sequence[Any], chosen: list[int]) -> list[Any]:
    return [column[i] for i in chosen]
