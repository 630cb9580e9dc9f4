"""The residual block of EDM's U-Nets (arXiv 2206.00364, App. F.1) and its attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sidfast.networks.edm.layers import Conv2d, GroupNorm, Init, Linear
from sidfast.ops.random import Key, dropout


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax over keys of q k^T / sqrt(d), applied to v.

    q, k, v (..., T, d) -> (..., T, d) in v's dtype; scores and softmax in at least float32.
    Plain products instead of the fused kernel: faster on CPUs for the T <= 1024 of these nets.
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    keys = k.to(precise) * (1 / math.sqrt(k.shape[-1]))
    weights = torch.matmul(q.to(precise), keys.transpose(-2, -1)).softmax(dim=-1)
    return torch.matmul(weights.to(v.dtype), v)


@dataclass(frozen=True)
class BlockOptions:
    """What all residual blocks of one network share."""

    emb_channels: int
    dropout: float
    skip_scale: float
    eps: float
    adaptive_scale: bool
    resample_proj: bool
    resample_filter: tuple[float, ...]
    channels_per_head: int | None
    init: Init
    init_zero: Init
    init_attn: Init


class UNetBlock(nn.Module):
    """Residual block: norm, conv, embedding, norm, dropout, conv, then optional self-attention.

    x (B, in_channels, H, W), emb (B or 1, emb_channels) -> (B, out_channels, H', W').
    `layer` is the block's running number, which separates the dropout masks of one call.
    """

    layer: int = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        options: BlockOptions,
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        o = options
        self.out_channels = out_channels
        self.dropout = o.dropout
        self.skip_scale = o.skip_scale
        self.adaptive_scale = o.adaptive_scale
        per_head = o.channels_per_head or out_channels
        self.num_heads = out_channels // per_head if attention else 0
        resampling: dict[str, Any] = {"up": up, "down": down, "resample_filter": o.resample_filter}

        self.norm0 = GroupNorm(in_channels, o.eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, init=o.init, **resampling)
        affine_width = out_channels * (2 if o.adaptive_scale else 1)
        self.affine = Linear(o.emb_channels, affine_width, init=o.init)
        self.norm1 = GroupNorm(out_channels, o.eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, init=o.init_zero)
        self.skip: Conv2d | None = None
        if in_channels != out_channels or up or down:
            kernel = 1 if o.resample_proj or in_channels != out_channels else 0
            self.skip = Conv2d(in_channels, out_channels, kernel, init=o.init, **resampling)
        if self.num_heads:
            self.norm2 = GroupNorm(out_channels, o.eps)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, init=o.init_attn)
            self.proj = Conv2d(out_channels, out_channels, 1, init=o.init_zero)

    def forward(self, x: Tensor, emb: Tensor, key: Key | None = None) -> Tensor:
        h = self.conv0(self.norm0(x, silu=True))
        params = self.affine(emb)
        if self.adaptive_scale:
            scale, shift = params.chunk(2, dim=1)
            h = self.norm1(h, scale=scale, shift=shift, silu=True)
        else:
            h = self.norm1(h, offset=params, silu=True)
        h = self.conv1(self._drop(h, key))
        x = self._join(h, x if self.skip is None else self.skip(x))
        if self.num_heads:
            x = self._join(self._attention(x), x)
        return x

    def _drop(self, h: Tensor, key: Key | None) -> Tensor:
        if not self.training or not self.dropout:
            return h
        if key is None:
            return F.dropout(h, self.dropout)
        stream = key.stream + self.layer
        return dropout(h, self.dropout, seed=key.seed, index=key.index, stream=stream)

    def _join(self, h: Tensor, skip: Tensor) -> Tensor:
        joined = skip + h  # in the memory format of `skip`
        return joined if self.skip_scale == 1 else joined.mul_(self.skip_scale)

    def _attention(self, x: Tensor) -> Tensor:
        # Published weights interleave the channels as [head][channel][q, k, v]. Products of
        # interleaved matrices would be made one by one.
        n, c, height, width = x.shape
        qkv = self.qkv(self.norm2(x)).permute(0, 2, 3, 1)
        tokens = qkv.reshape(n, height * width, self.num_heads, c // self.num_heads, 3)
        mixed = attend(*tokens.permute(4, 0, 2, 1, 3).contiguous().unbind(0))
        mixed = mixed.transpose(1, 2).reshape(n, height, width, c)
        return self.proj(mixed.permute(0, 3, 1, 2))


def number_blocks(unet: nn.Module) -> int:
    """Give every residual block its running number, in construction order; return their count."""
    blocks = [layer for layer in unet.modules() if isinstance(layer, UNetBlock)]
    for number, block in enumerate(blocks):
        block.layer = number
    return len(blocks)
