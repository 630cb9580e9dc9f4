"""Embeddings of the noise level and of class labels."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from sidfast.networks.edm.layers import Linear
from sidfast.ops.random import Key, uniform


class PositionalEmbedding(nn.Module):
    """Noise label (B,) -> (B, channels): cosines then sines at geometric frequencies.

    Frequencies run from 1 down to 1/10000, which `endpoint` includes.
    """

    def __init__(self, channels: int, *, endpoint: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.endpoint = endpoint

    def forward(self, noise_label: Tensor) -> Tensor:
        half = self.channels // 2
        steps = torch.arange(half, dtype=noise_label.dtype, device=noise_label.device)
        freqs = (1 / 10000) ** (steps / (half - (1 if self.endpoint else 0)))
        angle = noise_label[:, None] * freqs
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """Noise label (B,) -> (B, channels): cosines then sines at fixed random frequencies."""

    freqs: Tensor

    def __init__(self, channels: int, *, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(channels // 2) * scale)

    def forward(self, noise_label: Tensor) -> Tensor:
        angle = noise_label[:, None] * (2 * math.pi * self.freqs.to(noise_label.dtype))
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class Conditional(Protocol):
    """What `label_embedding` asks of a U-Net; `map_label` is None without classes."""

    label_dim: int
    label_dropout: float
    map_label: Linear | None
    num_layers: int
    training: bool


def label_embedding(
    unet: Conditional,
    class_labels: Tensor | None,
    like: Tensor,
    key: Key | None,
    gain: float,
) -> Tensor:
    """map_label(gain * class_labels), (B or 1, width), with `label_dropout` while training.

    No labels are zero labels. The keyed draw uses the stream after the last block's.
    """
    assert unet.map_label is not None
    if class_labels is None:
        return unet.map_label(like.new_zeros(1, unet.label_dim))
    labels = class_labels.to(like.dtype)
    if unet.training and unet.label_dropout:
        if key is None:
            u = torch.rand(labels.shape[0], 1, device=labels.device)
        else:
            stream = key.stream + unet.num_layers
            u = uniform((len(key.index), 1), seed=key.seed, index=key.index, stream=stream)
        labels = labels * (u >= unet.label_dropout).to(labels.dtype)
    return unet.map_label(labels * gain)
