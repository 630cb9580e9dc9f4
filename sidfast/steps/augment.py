"""EDM's geometric augmentation (arXiv 2206.00364, App. F.2), every draw keyed.

Each image is flipped along x and y, then resampled once under the product of a random isotropic
scaling, rotation, anisotropic scaling and translation. Resampling is that of StyleGAN2-ADA
(arXiv 2006.06676, App. B): reflect the borders, upsample twice with the sym6 wavelet filter, sample
bilinearly, downsample with the same filter. Padding, filtering and cropping along one axis are a
fixed linear map, so each is one small matrix here, of the same size whatever was drawn: no host
synchronisation, and a sample's result does not depend on its batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sidfast.base.errors import InputError
from sidfast.ops.random import Key, normal, uniform

LABEL_DIM = 9

# Low-pass decomposition filter of the symlet with six vanishing moments; sums to sqrt(2).
_SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_MARGIN = len(_SYM6) // 4


class AugmentDraws(NamedTuple):
    """The random numbers of one call, one row per image; columns in the order of `UNIFORMS` and
    `NORMALS`.
    """

    uniform: Tensor
    normal: Tensor

    @classmethod
    def from_key(cls, key: Key) -> AugmentDraws:
        """Draw number 0 of the key's stream holds the uniforms, number 1 the normals."""
        batch = len(key.index)
        return cls(
            uniform((batch, len(UNIFORMS)), seed=key.seed, index=key.index, stream=key.stream),
            normal((batch, len(NORMALS)), seed=key.seed, index=key.index, stream=key.stream + 1),
        )


# A transform applies to an image where its gate falls below strength * p.
UNIFORMS = (
    "xflip",
    "xflip_gate",
    "yflip",
    "yflip_gate",
    "scale_gate",
    "rotate",
    "rotate_gate",
    "aniso_axis",
    "aniso_gate",
    "aniso_axis_gate",
    "translate_gate",
)
NORMALS = ("scale", "aniso", "translate_x", "translate_y")


@dataclass(frozen=True)
class AugmentPipe:
    """`pipe(images, key) -> (augmented images, labels)`.

    Each transform happens with probability min(1, its strength * p); 0 switches it off. Flips by
    1e8 therefore happen (or not, evenly) at any p > 0. Standard deviations are in log2 units
    (scale_std, aniso_std) or in image widths and heights (translate_frac_std); rotate_frac_max is
    in half turns.

    Labels (B, 9) float32 tell the network what was done, zero for nothing: [x flipped, y flipped,
    log2 scale / scale_std, cos - 1 and sin of the rotation, log2 stretch / aniso_std times cos and
    sin of its axis, x and y shift / translate_frac_std]. A disabled transform keeps its columns.
    """

    p: float
    xflip: float = 1e8
    yflip: float = 1.0
    scale: float = 1.0
    rotate_frac: float = 1.0
    aniso: float = 1.0
    translate_frac: float = 1.0
    scale_std: float = 0.2
    rotate_frac_max: float = 1.0
    aniso_std: float = 0.2
    aniso_rotate_prob: float = 0.5
    translate_frac_std: float = 0.125

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0) or (field.name == "p" and value > 1):
                raise InputError(
                    expected=f"{field.name} " + ("in [0, 1]" if field.name == "p" else ">= 0"),
                    got=value,
                    fix="use p=0 for no augmentation, .12 for CIFAR-10, .15 for FFHQ",
                )

    def __call__(self, images: Tensor, key: Key) -> tuple[Tensor, Tensor]:
        """Augment images (B, C, H, W), with random numbers from `key`."""
        if images.ndim != 4 or len(key.index) != len(images):
            raise InputError(
                expected=f"images (B, C, H, W) with B = {len(key.index)}, the length of key.index",
                got=tuple(images.shape),
                fix="give one sample index per image",
            )
        if self.p == 0:
            return images, images.new_zeros(len(images), LABEL_DIM, dtype=torch.float32)
        return self.apply(images, AugmentDraws.from_key(key))

    def apply(self, images: Tensor, draws: AugmentDraws) -> tuple[Tensor, Tensor]:
        """Augment images (B, C, H, W) with given draws; a pure, differentiable function."""
        u = dict(zip(UNIFORMS, draws.uniform.unbind(1), strict=True))
        n = dict(zip(NORMALS, draws.normal.unbind(1), strict=True))

        def gated(value: Tensor, gate: str, strength: float) -> Tensor:
            return torch.where(u[gate] < strength * self.p, value, 0.0)

        xflip = gated((u["xflip"] >= 0.5).to(n["scale"].dtype), "xflip_gate", self.xflip)
        yflip = gated((u["yflip"] >= 0.5).to(n["scale"].dtype), "yflip_gate", self.yflip)
        scale = gated(n["scale"], "scale_gate", self.scale)
        half_turns = (2 * u["rotate"] - 1) * self.rotate_frac_max
        angle = gated(math.pi * half_turns, "rotate_gate", self.rotate_frac)
        aniso = gated(n["aniso"], "aniso_gate", self.aniso)
        turned = u["aniso_axis_gate"] < self.aniso_rotate_prob
        axis = torch.where(turned, math.pi * (2 * u["aniso_axis"] - 1), 0.0)
        shift_x = gated(n["translate_x"], "translate_gate", self.translate_frac)
        shift_y = gated(n["translate_y"], "translate_gate", self.translate_frac)

        images = torch.where(_per_image(xflip) == 1, images.flip(3), images)
        images = torch.where(_per_image(yflip) == 1, images.flip(2), images)
        if self.scale or self.rotate_frac or self.aniso or self.translate_frac:
            zoom = (scale * self.scale_std).exp2()
            stretch = (aniso * self.aniso_std).exp2()
            along_axis = _rotation(-axis) @ torch.diag_embed(
                torch.stack([1 / stretch, stretch], dim=1)
            )
            linear = _rotation(angle) @ along_axis @ _rotation(axis) / zoom[:, None, None]
            height, width = images.shape[2:]
            shift = torch.stack([shift_x * width, shift_y * height], dim=1)
            images = resample(images, linear, shift * self.translate_frac_std)
        labels = [xflip, yflip, scale, angle.cos() - 1, angle.sin()]
        labels += [aniso * axis.cos(), aniso * axis.sin(), shift_x, shift_y]
        return images, torch.stack(labels, dim=1).float()


def resample(images: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    """Output pixel p shows the input at linear (p - shift), both measured from the image centre.

    images (B, C, H, W); linear (B, 2, 2) and shift (B, 2) in (x, y) order and in pixels. Beyond the
    borders lies one reflection of the image, beyond that zero.
    """
    up_y, down_y = _wavelet_maps(images.shape[2], images.dtype, images.device)
    up_x, down_x = _wavelet_maps(images.shape[3], images.dtype, images.device)
    fine = up_y @ (images @ up_x.mT)
    fine_height, fine_width = fine.shape[2:]
    out_height, out_width = down_y.shape[1], down_x.shape[1]

    # The filters move the fine grids by half a fine pixel against the image's centre.
    offset = (linear @ (0.5 - 2 * shift)[:, :, None]).squeeze(2) - 0.5
    (xx, xy), (yx, yy) = (row.unbind(1) for row in linear.unbind(1))
    x, y = offset.unbind(1)
    theta = torch.stack(
        [
            torch.stack([xx * out_width, xy * out_height, 2 * x], dim=1) / fine_width,
            torch.stack([yx * out_width, yy * out_height, 2 * y], dim=1) / fine_height,
        ],
        dim=1,
    )
    shape = [*images.shape[:2], out_height, out_width]
    grid = F.affine_grid(theta.to(images.dtype), shape, align_corners=False)
    fine = F.grid_sample(fine, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return down_y @ (fine @ down_x.mT)


@lru_cache(maxsize=32)
def _wavelet_maps(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """(2 (3 size - 2), size): reflect by size - 1 at both ends and upsample twice;
    (size, 2 (size + 2 margin)): downsample twice and drop the margin.
    """
    taps = torch.tensor(_SYM6, dtype=torch.float64)[None, None]
    positions = torch.arange(1 - size, 2 * size - 1).abs()
    reflected = torch.where(positions < size, positions, 2 * (size - 1) - positions)
    columns = torch.eye(size, dtype=torch.float64)[:, None, reflected]
    stuffed = torch.stack([columns, torch.zeros_like(columns)], dim=3).flatten(2)[:, :, :-1]
    up = F.conv1d(stuffed, taps.flip(2), padding=len(_SYM6) // 2)
    fine = torch.eye(2 * (size + 2 * _MARGIN), dtype=torch.float64)[:, None]
    down = F.conv1d(fine, taps, stride=2, padding=(len(_SYM6) - 1) // 2)[..., _MARGIN:-_MARGIN]
    up, down = (matrix[:, 0].mT.contiguous().to(device, dtype) for matrix in (up, down))
    return up, down


def _per_image(value: Tensor) -> Tensor:
    return value[:, None, None, None]


def _rotation(angle: Tensor) -> Tensor:
    """(B,) -> (B, 2, 2), turning x towards y."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
