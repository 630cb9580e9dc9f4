"""Layers of EDM's U-Nets: linear, convolution with resampling, group norm, and how they start.

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
from sidfast.ops.group_norm import group_norm_silu, preferred_format


@dataclass(frozen=True)
class Init:
    """How a layer's parameters are drawn.

    `mode` is the distribution: 'xavier_uniform' within sqrt(6 / (fan_in + fan_out)),
    'kaiming_uniform' within sqrt(3 / fan_in), 'kaiming_normal' of deviation sqrt(1 / fan_in).
    Weights are multiplied by `weight`, biases (from the same distribution) by `bias`.
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

    def forward(self, x: Tensor) -> Tensor:
        fir_padding = (
            0 if self.resample_filter is None else (self.resample_filter.shape[-1] - 1) // 2
        )
        if not self.fused_resample:
            x = self._resample(x, fir_padding)
        if self.weight is not None and self.bias is not None:
            padding = self.kernel // 2 + (fir_padding if self.fused_resample else 0)
            x = F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=padding)
        return self._resample(x, 0) if self.fused_resample else x

    def _resample(self, x: Tensor, padding: int) -> Tensor:
        if self.resample_filter is None:
            return x
        if self.box:
            return F.avg_pool2d(x, 2) if self.down else F.interpolate(x, scale_factor=2.0)
        channels = x.shape[1]
        fir = self.resample_filter.to(x.dtype).expand(channels, -1, -1, -1)
        if self.down:
            return F.conv2d(x, fir, stride=2, padding=padding, groups=channels)
        return F.conv_transpose2d(x, 4 * fir, stride=2, padding=padding, groups=channels)


def in_fast_format(x: Tensor) -> Tensor:
    """x (B, C, H, W) in the memory format in which these layers are quickest on its device."""
    return x.contiguous(memory_format=preferred_format(x.device.type))


class GroupNorm(nn.Module):
    """Group normalisation with min(32, C/4) groups, and what follows it in a residual block.

    x (B, C, H, W), offset, scale and shift (B or 1, C) -> silu(GN(x + offset) (1 + scale) + shift),
    without the SiLU unless asked for.
    """

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

    def forward(
        self,
        x: Tensor,
        *,
        offset: Tensor | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        silu: bool = False,
    ) -> Tensor:
        offset, scale, shift = (
            None if each is None else each.expand(len(x), -1) for each in (offset, scale, shift)
        )
        return group_norm_silu(
            x,
            self.num_groups,
            self.weight,
            self.bias,
            self.eps,
            offset=offset,
            scale=scale,
            shift=shift,
            silu=silu,
        )
