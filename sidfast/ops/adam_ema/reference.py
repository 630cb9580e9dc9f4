"""The definition in eager PyTorch, parameter by parameter, in the parameters' own precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sidfast.ops.adam_ema.contract import Operands, Settings, Update


def reasons(op: str, *args: Any) -> list[str]:
    """Serves every call."""
    return []


def adam_ema(operands: Operands) -> Update:
    return partial(_update, operands)


@torch.no_grad()
def _update(operands: Operands, grads: Sequence[Tensor | None], settings: Settings) -> None:
    given = [grad for grad in grads if grad is not None]
    if settings.clamp:
        for each in given:
            torch.nan_to_num(each, nan=0.0, posinf=1e5, neginf=-1e5, out=each)
    elif not all(each.isfinite().all() for each in given):
        operands.skipped.add_(1)
        return
    for i, (param, grad) in enumerate(zip(operands.params, grads, strict=True)):
        if grad is not None:
            exp_avg = None if operands.exp_avgs is None else operands.exp_avgs[i]
            exp_avg_sq, step = operands.exp_avg_sqs[i], operands.steps[i]
            assert exp_avg_sq is not None and step is not None
            _adam(param, grad, exp_avg, exp_avg_sq, step, settings)
        if operands.ema is not None:
            operands.ema[i].copy_(param.lerp(operands.ema[i], settings.ema_beta))
        if operands.copies is not None:
            operands.copies[i].copy_(param)


def _adam(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor | None,
    exp_avg_sq: Tensor,
    step: Tensor,
    settings: Settings,
) -> None:
    lr, (beta1, beta2) = settings.lr, settings.betas
    step.add_(1)
    if settings.decoupled:
        param.mul_(1 - lr * settings.weight_decay)
    else:
        grad = grad + settings.weight_decay * param
    direction = grad if exp_avg is None else exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    variance = exp_avg_sq / (1 - beta2**step)
    param.sub_(lr / (1 - beta1**step) * direction / (variance.sqrt() + settings.eps))
