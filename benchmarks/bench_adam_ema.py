"""adam_ema against torch's fused Adam with a foreach average, and the method authors' loop.

`library` checks the gradients as `torch.amp.GradScaler` does, which is faster than the norm that
`torch norm check` takes; `eager` is the authors' form: nan_to_num for each gradient, Adam as it
comes, an average for each parameter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from conftest import THREADS, Case, memory_floor, worst_error
from torch import Tensor, nn

from sidfast.networks import EDMPrecond
from sidfast.ops.adam_ema import Operands, Settings, adam_ema
from sidfast.optim import AdamEMA
from sidfast.teachers import digits

LR, BETA2, EPS, EMA_BETA = 1e-5, 0.999, 1e-8, 0.9995
FLOPS = 15  # an element, division and square root among them


def cifar10() -> nn.Module:
    """EDM's DDPM++ for CIFAR-10: 55.7 million parameters."""
    return EDMPrecond(32, 3, augment_dim=9, channel_mult=[2, 2, 2])


def error(params: list[Tensor], grads: list[Tensor], beta1: float) -> float:
    """Deviation from float64 after two steps."""
    ends = []
    for dtype in (torch.float32, torch.float64):
        weights = [p.detach().to(dtype, copy=True) for p in params]
        first = [torch.zeros_like(p) for p in weights] if beta1 else None
        second = [torch.zeros_like(p) for p in weights]
        steps = [torch.zeros(()) for _ in weights]
        ema = [torch.zeros_like(p) for p in weights]
        skipped = torch.zeros((), dtype=torch.int64)
        operands = Operands(weights, first, second, steps, ema, None, skipped)
        backend = "native" if dtype == torch.float32 else "reference"
        update = adam_ema(operands, backend)
        for _ in range(2):
            settings = Settings(LR, (beta1, BETA2), EPS, ema_beta=EMA_BETA)
            update([g.to(dtype) for g in grads], settings)
        ends.append([*weights, *second, *ema, *(first or ())])
    return worst_error(*ends)


def rivals(
    params: Sequence[Tensor], average: Sequence[Tensor], betas: tuple[float, float]
) -> dict[str, Callable[[], None]]:
    """The step and the average as the method's authors write it, and by torch's fused functions."""
    grads = [p.grad for p in params if p.grad is not None]
    plain = torch.optim.Adam(params, LR, betas, EPS)
    fused = torch.optim.Adam(params, LR, betas, EPS, fused=True)
    found = torch.zeros((), device=params[0].device)
    unscaled = torch.ones_like(found)

    @torch.no_grad()
    def authors() -> None:
        for grad in grads:
            torch.nan_to_num(grad, nan=0, posinf=1e5, neginf=-1e5, out=grad)
        plain.step()
        for p, ema in zip(params, average, strict=True):
            ema.copy_(p.lerp(ema, EMA_BETA))

    @torch.no_grad()
    def library() -> None:
        found.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(grads, found, unscaled)
        fused.found_inf = found
        fused.step()
        torch._foreach_lerp_(average, params, 1 - EMA_BETA)

    return {"eager": authors, "library": library}


def bytes_of_step(size: int, beta1: float) -> int:
    """The gradient twice, for the flag and for the step; the others are read and written."""
    return (8 if beta1 == 0 else 10) * 4 * size


@pytest.mark.parametrize("threads", THREADS[-1:], indirect=True)
@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("network", [cifar10, digits])
def bench_adam_ema(
    race: Callable[..., None], threads: int, beta1: float, network: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    net = network().requires_grad_(True)
    params = list(net.parameters())
    average = list(copy.deepcopy(net).requires_grad_(False).parameters())
    for p in params:
        p.grad = torch.randn_like(p) * 0.01
    grads = [p.grad for p in params if p.grad is not None]
    betas = (beta1, BETA2)
    one_pass = AdamEMA(params, LR, betas, EPS, ema=average, backend="native")
    with_norm = AdamEMA(params, LR, betas, EPS, ema=average, backend="torch")
    size = sum(p.numel() for p in params)
    traffic = bytes_of_step(size, beta1)
    race(
        Case(
            "adam_ema",
            f"step, beta1 {beta1:g}",
            (size,),
            torch.float32,
            f"{len(params)} tensors",
            threads,
            traffic,
            FLOPS * size,
        ),
        lambda: one_pass.step(ema_beta=EMA_BETA),
        {
            **rivals(params, average, betas),
            "torch norm check": lambda: with_norm.step(ema_beta=EMA_BETA),
            "copy": memory_floor(traffic, 1)["copy"],
        },
        error=error(params, grads, beta1),
        budget=1e-6,
    )
