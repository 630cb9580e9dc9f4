"""Preconditioning: the denoiser D(x; σ) = c_skip x + c_out F(c_in x; c_noise) around a U-Net.

Table 1 of arXiv 2206.00364 gives the four sets of coefficients.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.networks.edm.dhariwal import DhariwalUNet
from sidfast.networks.edm.song import SongUNet
from sidfast.ops.random import Key

UNETS: dict[str, type[SongUNet] | type[DhariwalUNet]] = {
    "SongUNet": SongUNet,
    "DhariwalUNet": DhariwalUNet,
}

Coefficients = tuple[Tensor | float, Tensor, Tensor | float, Tensor]


class Preconditioner(nn.Module):
    """A denoiser: U-Net `model` plus the coefficients that a subclass defines.

    `forward(x, sigma, class_labels=None, augment_labels=None, *, key=None) -> x0`: x
    (B, img_channels, R, R) with noise of standard deviation sigma, a number, (1,), (B,) or
    (B, 1, 1, 1); class_labels one-hot (B or 1, label_dim) or None for zeros; augment_labels
    (B, augment_dim) or None; x0 like x in float32 (float64 where the weights are). In training
    mode dropout is drawn from `key`, one stream a block, or from torch's generator without one.
    With `use_fp16` the U-Net runs in half precision on CUDA, its weights and everything around it
    staying float32. Raises InputError for shapes or labels that do not fit.
    """

    img_channels: int
    img_resolution: int
    label_dim: int
    out_multiplier: ClassVar[int] = 1

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        use_fp16: bool,
        model_type: str,
        unet: Mapping[str, Any],
    ) -> None:
        super().__init__()
        if model_type not in UNETS:
            raise InputError(
                expected=f"model_type among {', '.join(UNETS)}",
                got=model_type,
                fix="pass one of them as model_type=",
            )
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.use_fp16 = use_fp16
        self.model_type = model_type
        self.unet_config = _all_arguments(UNETS[model_type], unet)
        self.model = UNETS[model_type](
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=img_channels * self.out_multiplier,
            label_dim=label_dim,
            **unet,
        )

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """(c_skip, c_out, c_in, c_noise), each of sigma's shape or a constant."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        *,
        key: Key | None = None,
    ) -> Tensor:
        self._check(x, class_labels, augment_labels)
        dtype = torch.promote_types(self.model.map_layer0.weight.dtype, torch.float32)
        x = x.to(dtype)
        sigma = self._as_column(sigma, x)
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma)
        inner = torch.float16 if self.use_fp16 and x.is_cuda else dtype
        raw = self.model(
            (c_in * x).to(inner), c_noise.flatten(), class_labels, augment_labels, key=key
        )
        return torch.addcmul(c_skip * x, c_out, raw[:, : self.img_channels].to(dtype))

    def _as_column(self, sigma: Tensor | float, x: Tensor) -> Tensor:
        """sigma as (B, 1, 1, 1) or (1, 1, 1, 1) in x's dtype and on its device."""
        if not isinstance(sigma, Tensor):
            return x.new_full((1, 1, 1, 1), sigma)
        batch = x.shape[0]
        if sigma.numel() not in (1, batch) or sigma.shape[1:].numel() != 1:
            raise InputError(
                expected=f"sigma as a number, ({batch},) or ({batch}, 1, 1, 1)",
                got=tuple(sigma.shape),
                fix="pass one noise level per image",
            )
        return sigma.to(device=x.device, dtype=x.dtype).reshape(-1, 1, 1, 1)

    def _check(self, x: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> None:
        image = (self.img_channels, self.img_resolution, self.img_resolution)
        if x.ndim != 4 or tuple(x.shape[1:]) != image:
            raise InputError(
                expected=f"images (B, {', '.join(map(str, image))})",
                got=tuple(x.shape),
                fix="resize the images or build the network for their size",
            )
        for name, labels, width in (
            ("class_labels", class_labels, self.label_dim),
            ("augment_labels", augment_labels, self.model.augment_dim),
        ):
            if labels is None:
                continue
            if not width:
                raise InputError(
                    expected=f"no {name}: this network was built without them",
                    got=tuple(labels.shape),
                    fix=f"pass {name}=None",
                )
            if labels.ndim != 2 or labels.shape[1] != width or labels.shape[0] not in (1, len(x)):
                raise InputError(
                    expected=f"{name} ({len(x)}, {width})",
                    got=tuple(labels.shape),
                    fix="one row per image; class labels are one-hot",
                )


class EDMPrecond(Preconditioner):
    """EDM: unit-variance input, output and target at every σ, for data of deviation sigma_data."""

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        sigma_data: float = 0.5,
        model_type: str = "SongUNet",
        **unet: Any,
    ) -> None:
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, unet)
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)
        self.sigma_data = sigma_data

    def coefficients(self, sigma: Tensor) -> Coefficients:
        variance = sigma.square() + self.sigma_data**2
        c_in = variance.rsqrt()
        return self.sigma_data**2 / variance, sigma * self.sigma_data * c_in, c_in, sigma.log() / 4


class VPPrecond(Preconditioner):
    """Variance preserving (DDPM++ as published by Song et al.): F predicts -ε."""

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
        model_type: str = "SongUNet",
        **unet: Any,
    ) -> None:
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, unet)
        self.beta_d = beta_d
        self.beta_min = beta_min
        self.M = M
        self.epsilon_t = epsilon_t
        self.sigma_min = self.sigma(epsilon_t)
        self.sigma_max = self.sigma(1.0)

    def sigma(self, t: float) -> float:
        """Noise level at time t in [0, 1]."""
        return math.sqrt(math.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t))

    def time(self, sigma: Tensor) -> Tensor:
        """The inverse of `sigma`."""
        log_alpha = sigma.square().log1p()
        return ((self.beta_min**2 + 2 * self.beta_d * log_alpha).sqrt() - self.beta_min) / (
            self.beta_d
        )

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return 1.0, -sigma, (sigma.square() + 1).rsqrt(), (self.M - 1) * self.time(sigma)


class VEPrecond(Preconditioner):
    """Variance exploding (NCSN++ as published by Song et al.)."""

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.02,
        sigma_max: float = 100.0,
        model_type: str = "SongUNet",
        **unet: Any,
    ) -> None:
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, unet)
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return 1.0, sigma, 1.0, (sigma / 2).log()


class iDDPMPrecond(Preconditioner):
    """Improved DDPM (arXiv 2102.09672), ADM's own: the nearest of M discrete noise levels.

    The U-Net has twice the image's channels; the first half predicts -ε, the rest (a learned
    variance) is unused.
    """

    u: Tensor
    out_multiplier = 2

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
        model_type: str = "DhariwalUNet",
        **unet: Any,
    ) -> None:
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, unet)
        self.C_1 = C_1
        self.C_2 = C_2
        self.M = M
        levels = self._levels()
        self.register_buffer("u", torch.tensor(levels))
        self.sigma_min = levels[M - 1]
        self.sigma_max = levels[0]

    def _levels(self) -> list[float]:
        """The M + 1 noise levels, largest first, zero last."""

        def alpha_bar(j: int) -> float:
            return math.sin(0.5 * math.pi * j / (self.M * (self.C_2 + 1))) ** 2

        levels = [0.0]
        for j in range(self.M, 0, -1):
            ratio = max(alpha_bar(j - 1) / alpha_bar(j), self.C_1)
            levels.append(math.sqrt((levels[-1] ** 2 + 1) / ratio - 1))
        return levels[::-1]

    def coefficients(self, sigma: Tensor) -> Coefficients:
        nearest = (sigma.flatten()[:, None] - self.u.to(sigma.dtype)).abs().argmin(dim=1)
        c_noise = (self.M - 1 - nearest).to(sigma.dtype)
        return 1.0, -sigma, (sigma.square() + 1).rsqrt(), c_noise


def _all_arguments(cls: type[nn.Module], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` completed by the defaults of cls's constructor."""
    defaults = {
        p.name: p.default
        for p in inspect.signature(cls).parameters.values()
        if p.default is not p.empty and p.name != "label_dim"
    }
    return {**defaults, **given}
