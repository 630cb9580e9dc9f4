"""One call of every operator that has GPU back ends; a new operator is one more entry."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sidfast import ops
from sidfast.ops import random, score_losses
from sidfast.optim import AdamEMA
from sidfast.testing.backends import skip_unless_served
from sidfast.testing.tensors import LAYOUTS

BACKENDS = ("triton", "cuda")  # of GPUs
SHAPE = (6, 3, 33, 31)


class Inputs(NamedTuple):
    """What calls draw from; the first three want gradients."""

    images: Tensor
    teacher: Tensor
    fake: Tensor
    sigma: Tensor
    seed: Tensor
    index: Tensor  # type: ignore[assignment]  # tuple.index is not needed

    @classmethod
    def make(
        cls,
        number: int,
        device: str,
        shape: tuple[int, ...] = SHAPE,
        dtype: torch.dtype = torch.float32,
        layout: str = "contiguous",
    ) -> Inputs:
        """The same values on every device."""
        generator = torch.Generator().manual_seed(number)
        images, *noise = (torch.randn(shape, generator=generator) for _ in range(3))
        teacher = images + 0.3 * noise[0]
        near = (images, teacher, teacher + 0.05 * noise[1])
        images, teacher, fake = (
            LAYOUTS[layout](each.to(dtype)).to(device).requires_grad_() for each in near
        )
        sigma = torch.rand(shape[0], generator=generator) + 0.1
        index = torch.arange(shape[0]) * 2**33 - number
        seed = torch.tensor(number, device=device)
        return cls(images, teacher, fake, sigma.to(device), seed, index.to(device))

    @torch.no_grad()
    def take(self, other: Inputs) -> None:
        """Another's values, in this one's memory."""
        for mine, theirs in zip(self, other, strict=True):
            mine.copy_(theirs)

    def key(self, backend: str) -> dict[str, Any]:
        """Keywords of a draw."""
        return {"seed": self.seed, "index": self.index, "stream": 5, "backend": backend}


class Operator(NamedTuple):
    """`forward(inputs, backend)` in a room; `wants` names the inputs that get gradients."""

    room: ModuleType
    forward: Callable[[Inputs, str], Tensor]
    wants: tuple[str, ...] = ()

    def results(self, inputs: Inputs, backend: str) -> list[Tensor]:
        """Result and gradients."""
        result = self.forward(inputs, backend)
        operands = [getattr(inputs, name) for name in self.wants]
        if not operands:
            return [result.detach()]
        upstream = torch.full_like(result, 0.5)
        return [result.detach(), *torch.autograd.grad(result, operands, upstream)]


OPERATORS = {
    "normal": Operator(
        random, lambda i, b: ops.normal(i.images.shape, dtype=i.images.dtype, **i.key(b))
    ),
    "uniform": Operator(random, lambda i, b: ops.uniform(i.images.shape, **i.key(b))),
    "integers": Operator(random, lambda i, b: ops.integers(i.images.shape, 1000, **i.key(b))),
    "add_noise": Operator(
        random,
        lambda i, b: ops.add_noise(i.images, i.sigma, scale=i.sigma, **i.key(b)),
        ("images",),
    ),
    "dropout": Operator(random, lambda i, b: ops.dropout(i.images, 0.3, **i.key(b)), ("images",)),
    "sid_loss": Operator(
        score_losses,
        lambda i, b: ops.sid_loss(i.images, i.teacher, i.fake, backend=b),
        ("images", "teacher", "fake"),
    ),
    "dsm_loss": Operator(
        score_losses,
        lambda i, b: ops.dsm_loss(i.images, i.fake, i.sigma, backend=b),
        ("fake",),
    ),
    "vsd_loss": Operator(
        score_losses,
        lambda i, b: ops.vsd_loss(i.images, i.teacher, i.fake, i.sigma, backend=b),
        ("images",),
    ),
    # Teacher and fake score stand for raw outputs, sigma for both coefficients; the noisy images
    # are made from the key, then given.
    "sid_loss_raw": Operator(
        score_losses,
        lambda i, b: ops.sid_loss_raw(
            i.images, i.teacher, i.fake, i.sigma, i.sigma, i.sigma, **i.key(b)
        ),
        ("images", "teacher", "fake"),
    ),
    "dsm_loss_raw": Operator(
        score_losses,
        lambda i, b: ops.dsm_loss_raw(
            i.images, i.fake, i.sigma, i.sigma, i.sigma, noisy=i.teacher.detach(), backend=b
        ),
        ("fake",),
    ),
}


def adam_steps(device: str, backend: str, beta1: float) -> list[Tensor]:
    """All tensors of an AdamEMA after three steps; the last, with a NaN, changes nothing."""
    generator = torch.Generator().manual_seed(0)

    def tensors() -> list[Tensor]:
        shapes = ((33,), (7, 5), (), (3000, 3), (128, 64, 3, 3))
        return [torch.randn(shape, generator=generator).to(device) for shape in shapes]

    params, ema = [p.requires_grad_() for p in tensors()], tensors()
    copies = [torch.empty_like(p, dtype=torch.bfloat16) for p in params]
    optimizer = AdamEMA(params, 1e-3, (beta1, 0.999), ema=ema, copies=copies, backend=backend)
    for step in range(3):
        grads = tensors()
        if step == 2:
            grads[1].view(-1)[-1] = torch.nan
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad
        optimizer.step(ema_beta=0.9)
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return [*(p.detach() for p in params), *ema, *copies, *moments, optimizer.skipped]


def served(name: str, backend: str) -> Operator:
    """An operator; skips the test where the back end does not serve it on a GPU."""
    operator = OPERATORS[name]
    args = operator.room.contract.plain_calls("cuda")[name]
    skip_unless_served(operator.room, backend, name, *args)
    return operator
