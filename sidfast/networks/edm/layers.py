"""Building blocks of EDM's U-Nets: linear, convolution with resampling, group norm, attention,
residual block, noise-level embeddings.

Parameter and buffer names equal those of the published checkpoints (arXiv 2206.00364, App. F).
Every layer computes in the dtype of its input and casts its float32 weights to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.ops.random import Key
from sidfast.ops.random import dropout as keyed_dropout


@dataclass(frozen=True)
class Init:
    """How a layer's parameters are drawn.

    `bound` gives the half-width of the uniform distribution (or the standard deviation of the
    normal one) from fan-in and fan-out: 'xavier_uniform', 'kaiming_uniform' or 'kaiming_normal'.
    Weights are multiplied by `weight`, biases (same distribution) by `bias`.
    """

    mode: str
    weight: float = 1.0
    bias: float = 0.0

    def fill_(self, layer: Linear | Conv2d, fan_in: int, fan_out: int) -> None:
        """Draw `layer.weight` and `layer.bias` (if it has one) in place."""
        for parameter, gain in ((layer.weight, self.weight), (layer.bias, self.bias)):
            if parameter is None:
                continue
            with torch.no_grad():
                if gain == 0:
                    parameter.zero_()
                elif self.mode == "kaiming_normal":
                    parameter.normal_(0, gain * math.sqrt(1 / fan_in))
                else:
                    xavier = self.mode == "xavier_uniform"
                    bound = gain * math.sqrt(6 / (fan_in + fan_out) if xavier else 3 / fan_in)
                    parameter.uniform_(-bound, bound)


class Linear(nn.Module):
    """x (B, in_features) -> (B, out_features)."""

    bias: nn.Parameter | None

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, init: Init
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        init.fill_(self, in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


def fir_filter(taps: Sequence[float]) -> Tensor:
    """Separable low-pass filter (1, 1, n, n) that sums to one, from its one-dimensional taps."""
    if len(taps) % 2 or not sum(taps):
        raise InputError(
            expected="an even number of resample_filter taps with a non-zero sum",
            got=list(taps),
            fix="use [1, 1] (DDPM++, ADM) or [1, 3, 3, 1] (NCSN++)",
        )
    line = torch.tensor(taps, dtype=torch.float32)
    plane = line[:, None] * line[None, :]
    return (plane / plane.sum())[None, None]


class Conv2d(nn.Module):
    """Convolution, optionally preceded by 2x up- or downsampling with a FIR filter.

    x (B, in_channels, H, W) -> (B, out_channels, H', W') with H' = H, 2H or H/2. `kernel` 0 means
    resampling alone, without weights. `fused_resample` (downsampling only) convolves at full size
    and filters afterwards, which differs from the default only at the borders.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    resample_filter: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        init: Init,
        up: bool = False,
        down: bool = False,
        resample_filter: Sequence[float] = (1, 1),
        fused_resample: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.kernel = kernel
        self.up = up
        self.down = down
        self.fused_resample = fused_resample
        self.box = len(resample_filter) == 2 and resample_filter[0] == resample_filter[1]
        self.weight = self.bias = None
        if kernel:
            self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
            self.bias = nn.Parameter(torch.empty(out_channels))
            init.fill_(self, in_channels * kernel**2, out_channels * kernel**2)
        self.register_buffer("resample_filter", fir_filter(resample_filter) if up or down else None)

    def _resample(self, x: Tensor, padding: int) -> Tensor:
        if self.box:
            return F.avg_pool2d(x, 2) if self.down else F.interpolate(x, scale_factor=2.0)
        assert self.resample_filter is not None
        channels = x.shape[1]
        fir = self.resample_filter.to(x.dtype).expand(channels, -1, -1, -1)
        if self.down:
            return F.conv2d(x, fir, stride=2, padding=padding, groups=channels)
        return F.conv_transpose2d(x, 4 * fir, stride=2, padding=padding, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        resamples = self.resample_filter is not None
        fir_padding = (self.resample_filter.shape[-1] - 1) // 2 if resamples else 0
        if resamples and not self.fused_resample:
            x = self._resample(x, fir_padding)
        if self.weight is not None:
            padding = self.kernel // 2 + (fir_padding if self.fused_resample else 0)
            x = F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=padding)
        if self.fused_resample:
            x = self._resample(x, 0)
        return x


class GroupNorm(nn.Module):
    """Group normalisation with min(32, C/4) groups. x (B, C, H, W) -> same shape."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups = max(min(32, channels // 4), 1)
        self.eps = eps
        if channels % self.num_groups:
            raise InputError(
                expected=f"a channel count divisible by its {self.num_groups} norm groups",
                got=channels,
                fix="choose model_channels and channel_mult so that every width is",
            )
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.group_norm(x, self.num_groups, weight, bias, self.eps)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax over keys of q^T k / sqrt(d), applied to v.

    q, k, v (N, d, T) -> (N, d, T) in v's dtype; scores and softmax in at least float32.
    Plain products instead of the fused kernel: faster on CPUs for the T <= 1024 of these nets.
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    keys = k.to(precise) * (1 / math.sqrt(k.shape[1]))
    weights = torch.bmm(q.to(precise).transpose(1, 2), keys).softmax(dim=2)
    return torch.bmm(v, weights.to(v.dtype).transpose(1, 2))


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
        resampling = {"up": up, "down": down, "resample_filter": o.resample_filter}

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
        h = self.conv0(F.silu(self.norm0(x)))
        params = self.affine(emb).to(x.dtype)[:, :, None, None]
        if self.adaptive_scale:
            scale, shift = params.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        else:
            h = F.silu(self.norm1(h + params))
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
        return keyed_dropout(h, self.dropout, seed=key.seed, index=key.index, stream=stream)

    def _join(self, h: Tensor, skip: Tensor) -> Tensor:
        joined = h + skip
        return joined if self.skip_scale == 1 else joined * self.skip_scale

    def _attention(self, x: Tensor) -> Tensor:
        # Published weights interleave the channels as [head][channel][q, k, v].
        n, c, height, width = x.shape
        qkv = self.qkv(self.norm2(x))
        q, k, v = qkv.view(n * self.num_heads, c // self.num_heads, 3, height * width).unbind(2)
        return self.proj(attend(q, k, v).view(n, c, height, width))


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
