"""DDPM++ and NCSN++ of Song et al. (arXiv 2011.13456) as reparameterised by EDM (2206.00364)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.networks.edm.block import BlockOptions, UNetBlock, number_blocks
from sidfast.networks.edm.embedding import FourierEmbedding, PositionalEmbedding, label_embedding
from sidfast.networks.edm.layers import Conv2d, GroupNorm, Init, Linear, in_fast_format
from sidfast.networks.edm.plan import plan_decoder, plan_encoder
from sidfast.ops.random import Key


class SongUNet(nn.Module):
    """The raw network F of DDPM++ (the defaults) and NCSN++.

    NCSN++ is `embedding_type='fourier', channel_mult_noise=2, encoder_type='residual',
    resample_filter=[1, 3, 3, 1]`. Attention has one head and stands in every encoder block at
    `attn_resolutions`, in the middle and in the last decoder block of such a resolution.

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
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        _one_of("embedding_type", embedding_type, ("positional", "fourier"))
        _one_of("encoder_type", encoder_type, ("standard", "skip", "residual"))
        _one_of("decoder_type", decoder_type, ("standard", "skip"))
        self.label_dim = label_dim
        self.augment_dim = augment_dim
        self.label_dropout = label_dropout
        emb_channels = model_channels * channel_mult_emb
        noise_channels = model_channels * channel_mult_noise
        init = Init("xavier_uniform")
        init_zero = Init("xavier_uniform", weight=1e-5)
        options = BlockOptions(
            emb_channels=emb_channels,
            dropout=dropout,
            skip_scale=math.sqrt(0.5),
            eps=1e-6,
            adaptive_scale=False,
            resample_proj=True,
            resample_filter=tuple(resample_filter),
            channels_per_head=None,
            init=init,
            init_zero=init_zero,
            init_attn=Init("xavier_uniform", weight=math.sqrt(0.2)),
        )

        self.map_noise = (
            PositionalEmbedding(noise_channels, endpoint=True)
            if embedding_type == "positional"
            else FourierEmbedding(noise_channels)
        )
        self.map_label = Linear(label_dim, noise_channels, init=init) if label_dim else None
        self.map_augment = (
            Linear(augment_dim, noise_channels, bias=False, init=init) if augment_dim else None
        )
        self.map_layer0 = Linear(noise_channels, emb_channels, init=init)
        self.map_layer1 = Linear(emb_channels, emb_channels, init=init)

        widths = [model_channels * mult for mult in channel_mult]
        encoder = plan_encoder(img_resolution, in_channels, model_channels, widths, num_blocks)
        resampling: dict[str, Any] = {"resample_filter": resample_filter, "init": init}
        self.enc = nn.ModuleDict()
        aux = in_channels
        for step in encoder:
            width = step.out_channels
            if step.kind == "conv":
                self.enc[step.name] = Conv2d(in_channels, width, 3, init=init)
                continue
            attention = step.kind == "block" and step.res in attn_resolutions
            self.enc[step.name] = UNetBlock(
                step.in_channels, width, options, down=step.kind == "down", attention=attention
            )
            size = f"{step.res}x{step.res}"
            if step.kind == "down" and encoder_type == "skip":
                self.enc[f"{size}_aux_down"] = Conv2d(aux, aux, 0, down=True, **resampling)
                self.enc[f"{size}_aux_skip"] = Conv2d(aux, width, 1, init=init)
            if step.kind == "down" and encoder_type == "residual":
                self.enc[f"{size}_aux_residual"] = Conv2d(
                    aux, width, 3, down=True, fused_resample=True, **resampling
                )
                aux = width

        self.dec = nn.ModuleDict()
        for step in plan_decoder(encoder, widths, num_blocks):
            width = step.out_channels
            last = step.kind == "block" and step.number == num_blocks
            middle = step.kind == "in" and step.number == 0
            self.dec[step.name] = UNetBlock(
                step.in_channels,
                width,
                options,
                up=step.kind == "up",
                attention=middle or (last and step.res in attn_resolutions),
            )
            size = f"{step.res}x{step.res}"
            if last and decoder_type == "skip" and step.level < len(widths) - 1:
                self.dec[f"{size}_aux_up"] = Conv2d(
                    out_channels, out_channels, 0, up=True, **resampling
                )
            if last and (decoder_type == "skip" or step.level == 0):
                self.dec[f"{size}_aux_norm"] = GroupNorm(width, eps=1e-6)
                self.dec[f"{size}_aux_conv"] = Conv2d(width, out_channels, 3, init=init_zero)
        self.num_layers = number_blocks(self)

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        key: Key | None = None,
    ) -> Tensor:
        emb = self._embedding(noise_labels, class_labels, augment_labels, key)
        skips: list[Tensor] = []
        aux = x
        for name, layer in self.enc.items():
            if isinstance(layer, UNetBlock):
                x = layer(x, emb, key)
                skips.append(x)
            elif name.endswith("aux_down"):
                aux = layer(aux)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + layer(aux)
            elif name.endswith("aux_residual"):
                x = skips[-1] = aux = (x + layer(aux)) * math.sqrt(0.5)
            else:
                x = in_fast_format(layer(x))
                skips.append(x)

        image: Tensor | None = None
        normed = x
        for name, layer in self.dec.items():
            if isinstance(layer, UNetBlock):
                x = layer(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, emb, key)
            elif name.endswith("aux_up"):
                image = layer(image)
            elif name.endswith("aux_norm"):
                normed = layer(x, silu=True)
            else:
                out = layer(normed)
                image = out if image is None else image + out
        assert image is not None
        return image

    def _embedding(
        self,
        noise_labels: Tensor,
        class_labels: Tensor | None,
        augment_labels: Tensor | None,
        key: Key | None,
    ) -> Tensor:
        cosines, sines = self.map_noise(noise_labels).chunk(2, dim=1)
        emb = torch.cat([sines, cosines], dim=1)
        if self.map_label is not None:
            emb = emb + label_embedding(self, class_labels, emb, key, math.sqrt(self.label_dim))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb.dtype))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(
            expected=f"{name} among {', '.join(allowed)}", got=value, fix=f"pass one as {name}="
        )
