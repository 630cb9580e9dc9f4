"""The networks of one run and the frozen views through which the other update sees them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import nn


def frozen_view(network: nn.Module) -> nn.Module:
    """The same network in eval mode and without gradients, on the same memory.

    Parameters and buffers are aliases: what an optimizer does to `network` in place is seen here
    at once. Built once, so that no module changes mode or `requires_grad` inside a run.
    """
    aliases: dict[int, object] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()
    }
    aliases |= {id(b): b for b in network.buffers()}
    return copy.deepcopy(network, aliases).eval().requires_grad_(False)


@dataclass(frozen=True)
class Networks:
    """Teacher, fake score and generator, live where they learn and as views where they do not.

    Attributes:
        teacher: f_phi, frozen, eval mode.
        fake: f_psi, train mode; `fake_view` its frozen view.
        generator: G_theta, train mode; `generator_view` its frozen view.
    """

    teacher: nn.Module
    fake: nn.Module
    fake_view: nn.Module
    generator: nn.Module
    generator_view: nn.Module

    @staticmethod
    def from_teacher(teacher: nn.Module, dropout: float | None = None) -> Networks:
        """Fake score and generator start as copies of the teacher; all three run in float32.

        Args:
            teacher: the denoiser; it is not changed.
            dropout: dropout probability of both copies in train mode; None keeps the teacher's.
        """
        frozen = frozen_view(teacher)
        fake, generator = copy.deepcopy(teacher), copy.deepcopy(teacher)
        for network in (frozen, fake, generator):
            if getattr(network, "use_fp16", False):
                network.use_fp16 = False  # type: ignore[assignment]
        for network in (fake, generator):
            network.train().requires_grad_(True)
            if dropout is not None:
                set_dropout(network, dropout)
        return Networks(frozen, fake, frozen_view(fake), generator, frozen_view(generator))


def set_dropout(network: nn.Module, probability: float) -> None:
    """Give every block that has a `dropout` probability this one."""
    for module in network.modules():
        if type(getattr(module, "dropout", None)) in (int, float):
            module.dropout = probability  # type: ignore[assignment]
        elif isinstance(module, nn.Dropout):
            module.p = probability
