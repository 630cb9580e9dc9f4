"""Whole iterations on a GPU."""

from __future__ import annotations

import pytest
import torch

from sidfast import DistillConfig, Distiller
from sidfast.networks import EDMPrecond


def make(device: str) -> Distiller:
    torch.manual_seed(0)
    teacher = EDMPrecond(8, 1, label_dim=3, augment_dim=9, model_channels=8, num_blocks=1)
    shares = (0.5, 0.25, 0.25)
    cfg = DistillConfig(batch=8, lr=1e-4, augment=0.5, dropout=0.1, class_probabilities=shares)
    return Distiller(teacher.to(device).eval(), cfg)


def test_no_iteration_waits_for_the_device() -> None:
    distiller = make("cuda")
    for _ in range(2):
        distiller.step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        distiller.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_first_iteration_is_that_of_a_cpu() -> None:
    """The same draws, to rounding; later ones part, as Adam turns rounding into steps."""
    here, there = make("cpu").step(), make("cuda").step()
    for name, value in here.items():
        assert there[name].item() == pytest.approx(value.item(), rel=1e-2)
