"""Batches for the score losses and what their results are held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sidfast.base.batch import spread
from sidfast.testing.tensors import LAYOUTS, relative_error

DATA = 0.5  # standard deviation of the data


def batch(
    shape: Sequence[int],
    device: str,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
) -> list[Tensor]:
    """Images, a teacher near them and a fake score near the teacher, all needing gradients."""
    generator = torch.Generator().manual_seed(sum(shape))
    noise = [torch.randn(tuple(shape), generator=generator) for _ in range(3)]
    images, teacher = noise[0], noise[0] + 0.3 * noise[1]
    tensors = (images, teacher, teacher + 0.05 * noise[2])
    return [LAYOUTS[layout](each.to(device, dtype)).requires_grad_() for each in tensors]


def noise_levels(size: int, device: str) -> Tensor:
    return torch.linspace(0.01, 20, size).to(device)


class Preconditioning(NamedTuple):
    """EDM's of noise levels (arXiv 2206.00364, table 1), (B,) float32 each."""

    sigma: Tensor
    c_skip: Tensor
    c_out: Tensor

    @classmethod
    def of(cls, sigma: Tensor) -> Preconditioning:
        variance = sigma**2 + DATA**2
        return cls(sigma, DATA**2 / variance, sigma * DATA / variance.sqrt())

    def denoised(self, raw: Tensor, noisy: Tensor) -> Tensor:
        """c_skip x_t + c_out raw."""
        return spread(self.c_skip, raw) * noisy + spread(self.c_out, raw) * raw


def exact(
    loss: Callable[..., tuple[Tensor, Tensor]], operands: Sequence[Tensor], *constants: Any
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss, weight and gradients of the definition in float64, on the values that were stored."""
    wide = [each.detach().double().requires_grad_() for each in operands]
    value, weight = loss(*wide, *constants)
    grads = torch.autograd.grad(value.sum(), wide, allow_unused=True, materialize_grads=True)
    return value.detach(), weight, list(grads)


def assert_near(actual: Tensor, expected: Tensor, float32_error: float = 2e-7) -> None:
    """The budget for float32, and one rounding of what is stored shorter."""
    budget = float32_error
    if actual.dtype in (torch.bfloat16, torch.float16):
        budget += torch.finfo(actual.dtype).eps / 2
    assert relative_error(actual, expected) <= budget
