"""ADM of Dhariwal and Nichol (arXiv 2105.05233) as reparameterised by EDM (2206.00364)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sidfast.networks.edm.block import BlockOptions, UNetBlock, number_blocks
from sidfast.networks.edm.embedding import PositionalEmbedding, label_embedding
from sidfast.networks.edm.layers import Conv2d, GroupNorm, Init, Linear, in_fast_format
from sidfast.networks.edm.plan import plan_decoder, plan_encoder
from sidfast.ops.random import Key


class DhariwalUNet(nn.Module):
    """The raw network F of ADM.

    Attention has 64 channels a head (none where the width is below 64) and stands in every block
    at `attn_resolutions` and in the middle.

    `forward(x, noise_labels, class_labels, augment_labels, key=None)`: x (B, in_channels, R, R),
    noise_labels (B,) or (1,), class_labels (B or 1, label_dim) or None, augment_labels
    (B, augment_dim) or None -> (B, out_channels, R, R).
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.label_dim = label_dim
        self.augment_dim = augment_dim
        self.label_dropout = label_dropout
        emb_channels = model_channels * channel_mult_emb
        init = Init("kaiming_uniform", weight=math.sqrt(1 / 3), bias=math.sqrt(1 / 3))
        init_zero = Init("kaiming_uniform", weight=0.0)
        options = BlockOptions(
            emb_channels=emb_channels,
            dropout=dropout,
            skip_scale=1.0,
            eps=1e-5,
            adaptive_scale=True,
            resample_proj=False,
            resample_filter=(1, 1),
            channels_per_head=64,
            init=init,
            init_zero=init_zero,
            init_attn=init,
        )

        self.map_noise = PositionalEmbedding(model_channels)
        self.map_augment = (
            Linear(augment_dim, model_channels, bias=False, init=init_zero) if augment_dim else None
        )
        self.map_layer0 = Linear(model_channels, emb_channels, init=init)
        self.map_layer1 = Linear(emb_channels, emb_channels, init=init)
        init_label = Init("kaiming_normal", weight=math.sqrt(label_dim))
        self.map_label = (
            Linear(label_dim, emb_channels, bias=False, init=init_label) if label_dim else None
        )

        widths = [model_channels * mult for mult in channel_mult]
        encoder = plan_encoder(img_resolution, in_channels, widths[0], widths, num_blocks)
        self.enc = nn.ModuleDict()
        for step in encoder:
            self.enc[step.name] = (
                Conv2d(in_channels, widths[0], 3, init=init)
                if step.kind == "conv"
                else UNetBlock(
                    step.in_channels,
                    step.out_channels,
                    options,
                    down=step.kind == "down",
                    attention=step.kind == "block" and step.res in attn_resolutions,
                )
            )
        self.dec = nn.ModuleDict()
        for step in plan_decoder(encoder, widths, num_blocks):
            middle = step.kind == "in" and step.number == 0
            self.dec[step.name] = UNetBlock(
                step.in_channels,
                step.out_channels,
                options,
                up=step.kind == "up",
                attention=middle or (step.kind == "block" and step.res in attn_resolutions),
            )
        self.out_norm = GroupNorm(widths[0])
        self.out_conv = Conv2d(widths[0], out_channels, 3, init=init_zero)
        self.num_layers = number_blocks(self)

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        key: Key | None = None,
    ) -> Tensor:
        emb = self.map_noise(noise_labels)
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb.dtype))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None:
            emb = emb + label_embedding(self, class_labels, emb, key, gain=1.0)
        emb = F.silu(emb)

        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, emb, key) if isinstance(layer, UNetBlock) else in_fast_format(layer(x))
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, emb, key)
        return self.out_conv(self.out_norm(x, silu=True))
