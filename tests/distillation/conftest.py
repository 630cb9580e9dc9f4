from __future__ import annotations

import pytest
import torch

from sidfast.networks import EDMPrecond


@pytest.fixture
def make_teacher():
    """A tiny DDPM++ with random weights, always the same."""

    def build(label_dim: int = 0, **options) -> EDMPrecond:
        torch.manual_seed(0)
        settings = {
            "model_type": "SongUNet",
            "model_channels": 8,
            "channel_mult": [1, 2],
            "num_blocks": 1,
            "attn_resolutions": [4],
            "dropout": 0.1,
            "augment_dim": 9,
        }
        network = EDMPrecond(8, 1, label_dim, **{**settings, **options})
        return network.eval().requires_grad_(False)

    return build
