"""Losses of raw network outputs against preconditioning in torch and the same losses after it.

`x library` is ours over preconditioning in eager torch followed by our own loss of denoised images;
the other rivals write all of it in torch. Every rival reads noisy images made beforehand; the keyed
rows of ours make the noise again instead, which costs a CPU more than reading, and less memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bench_dsm_loss import eager as eager_dsm
from bench_sid_loss import ALPHA
from bench_sid_loss import eager as eager_sid
from conftest import THREADS, Case, memory_floor, worst_error
from torch import Tensor

from sidfast import ops
from sidfast.base.batch import spread
from sidfast.ops.score_losses import reference
from sidfast.testing.losses import DATA, Preconditioning

SHAPE = (128, 3, 64, 64)
MODES = ("noisy", "keyed")
FLOPS = {"noisy": 27, "keyed": 55}  # an element; a normal costs about 28

cases = pytest.mark.parametrize(
    ("threads", "dtype", "mode"),
    [(threads, dtype, mode) for threads in THREADS
     for dtype in (torch.float32, torch.bfloat16) for mode in MODES],
    indirect=["threads"],
)  # fmt: skip


class Operands:
    """Images, raw outputs of `dtype`, and noisy images or the key that makes them."""

    def __init__(self, dtype: torch.dtype, mode: str) -> None:
        torch.manual_seed(0)
        size = SHAPE[0]
        self.images = torch.randn(SHAPE)
        self.raws = [torch.randn(SHAPE).to(dtype).requires_grad_() for _ in range(2)]
        self.precond = Preconditioning.of(torch.rand(size) * 5 + 0.3)
        self.key: dict[str, Any] = {"seed": 1, "index": torch.arange(size)}
        self.noisy = ops.add_noise(self.images, self.precond.sigma, **self.key)
        self.source = self.key if mode == "keyed" else {"noisy": self.noisy}
        self.columns = Preconditioning(*(spread(each, self.images) for each in self.precond))
        self.scale = 1 / size

    def denoised(self, raw: Tensor) -> Tensor:
        _, c_skip, c_out = self.columns
        return c_skip * self.noisy + c_out * raw

    def bytes(self, *, images: int, raws: int, noisy: int) -> int:
        """Of so many passes over each."""
        element = 4 * images + self.raws[0].element_size() * raws + 4 * noisy
        return element * self.images.numel()


@cases
def bench_sid_loss_raw(
    race: Callable[..., None], threads: int, dtype: torch.dtype, mode: str
) -> None:
    given = Operands(dtype, mode)
    images = given.images.requires_grad_()
    wanted = [images, *given.raws]
    if mode == "noisy":
        wanted.append(given.noisy.requires_grad_())

    def both_ways(loss: Tensor) -> list[Tensor]:
        grads = torch.autograd.grad(loss.sum() * given.scale, wanted)
        return [loss.detach(), *grads]

    def ours() -> Tensor:
        options: dict[str, Any] = {"grad_scale": given.scale, "backend": "native"}
        return ops.sid_loss_raw(
            images, *given.raws, *given.precond, ALPHA, **given.source, **options
        )

    def preconditioned() -> Tensor:
        denoised = map(given.denoised, given.raws)
        return ops.sid_loss(images, *denoised, ALPHA, grad_scale=given.scale, backend="native")

    def eager() -> Tensor:
        return eager_sid(images, *map(given.denoised, given.raws))

    compiled = torch.compile(eager)
    operands = [images, *given.raws, given.noisy]
    wide = [each.detach().double().requires_grad_() for each in operands]
    _, c_skip, c_out = given.precond
    loss, _ = reference.sid_loss_raw(
        *wide, given.precond.sigma, None, None, 0, c_skip, c_out, ALPHA, 1e-5
    )
    grads = list(torch.autograd.grad(loss.sum() * given.scale, wide))
    if mode == "keyed":
        to_noisy = grads.pop()
        grads[0] = grads[0] + to_noisy
    exact = [loss.detach(), *grads]
    noisy = 2 if mode == "noisy" else 0
    traffic = given.bytes(images=2, raws=4, noisy=noisy)
    race(
        Case("sid_loss_raw", f"forward+backward, {mode}", SHAPE, dtype, "contiguous", threads,
             traffic, FLOPS[mode] * images.numel()),
        lambda: both_ways(ours()),
        {
            "eager": lambda: both_ways(eager()),
            "compile": lambda: both_ways(compiled()),
            "library": lambda: both_ways(preconditioned()),
            **memory_floor(traffic, len(wanted)),
        },
        error=worst_error(both_ways(ours()), exact),
        budget=max(2e-6, torch.finfo(dtype).eps),
    )  # fmt: skip


@cases
def bench_dsm_loss_raw(
    race: Callable[..., None], threads: int, dtype: torch.dtype, mode: str
) -> None:
    given = Operands(dtype, mode)
    images, raw = given.images, given.raws[0]

    def both_ways(loss: Tensor) -> list[Tensor]:
        return [loss.detach(), *torch.autograd.grad(loss.sum() * given.scale, [raw])]

    def ours() -> Tensor:
        options = {**given.source, "grad_scale": given.scale, "backend": "native"}
        return ops.dsm_loss_raw(images, raw, *given.precond, DATA, **options)

    def preconditioned() -> Tensor:
        level, scale = given.precond.sigma, given.scale
        denoised = given.denoised(raw)
        return ops.dsm_loss(images, denoised, level, DATA, grad_scale=scale, backend="native")

    def eager() -> Tensor:
        return eager_dsm(images, given.denoised(raw), given.columns.sigma)

    compiled = torch.compile(eager)
    wide = raw.detach().double().requires_grad_()
    noisy, (sigma, c_skip, c_out) = given.noisy.double(), given.precond
    loss, _ = reference.dsm_loss_raw(
        images.double(), wide, noisy, sigma, None, None, 0, c_skip, c_out, DATA
    )
    exact = [loss.detach(), *torch.autograd.grad(loss.sum() * given.scale, [wide])]
    traffic = given.bytes(images=1, raws=2, noisy=int(mode == "noisy"))
    race(
        Case("dsm_loss_raw", f"forward+backward, {mode}", SHAPE, dtype, "contiguous", threads,
             traffic, FLOPS[mode] // 2 * images.numel()),
        lambda: both_ways(ours()),
        {
            "eager": lambda: both_ways(eager()),
            "compile": lambda: both_ways(compiled()),
            "library": lambda: both_ways(preconditioned()),
            **memory_floor(traffic, 1),
        },
        error=worst_error(both_ways(ours()), exact),
        budget=max(2e-6, torch.finfo(dtype).eps),
    )  # fmt: skip
