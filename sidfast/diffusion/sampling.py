"""Drawing images by number: what one-step generators and iterative samplers share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sidfast.base.errors import InputError
from sidfast.base.lanes import side_by_side
from sidfast.base.precision import full_float32
from sidfast.diffusion.denoiser import Denoiser
from sidfast.diffusion.streams import Stream
from sidfast.ops.random import integers, normal


@torch.no_grad()
def sample_images(
    denoiser: Denoiser,
    make: Callable[[Tensor, Tensor | None], Tensor],
    n: int,
    seed: int,
    labels: Tensor | int | None,
    batch: int,
) -> Tensor:
    """Draw n images; image i depends on (seed, i, its label) alone, up to float32 rounding.

    Args:
        denoiser: says image size, classes and device.
        make: unit normal latents (B, C, H, W) and one-hot labels (B, K), or None, to images.
        labels: classes, (n,) integers or one for all; None draws them uniformly where the
            denoiser has classes.
        batch: images per call of `make`.

    Returns:
        (n, C, H, W) float32, clamped to [-1, 1].

    Raises:
        InputError: n < 1, or labels of the wrong number, type or range, or for a model without
            classes.
    """
    if n < 1:
        raise InputError(expected="n >= 1 images", got=n, fix="ask for at least one")
    index = torch.arange(n, device=device_of(denoiser))
    onehot = _one_hot(denoiser.label_dim, labels, seed, index)
    shape = (denoiser.img_channels, denoiser.img_resolution, denoiser.img_resolution)

    def draw(part: Tensor) -> Tensor:
        z = normal((len(part), *shape), seed=seed, index=part, stream=Stream.SAMPLE_LATENT)
        return make(z, None if onehot is None else onehot[part]).clamp(-1, 1)

    with full_float32(index.device):
        return torch.cat(side_by_side(draw, index.split(batch), index.device))


def device_of(net: object) -> torch.device:
    """Where a network's parameters are; the CPU for anything without parameters."""
    if isinstance(net, nn.Module):
        for parameter in net.parameters():
            return parameter.device
    return torch.device("cpu")


def _one_hot(classes: int, labels: Tensor | int | None, seed: int, index: Tensor) -> Tensor | None:
    n = len(index)
    if not classes:
        if labels is None:
            return None
        raise InputError(
            expected="labels=None for a model without classes", got="labels", fix="leave them out"
        )
    if labels is None:
        chosen = integers((n,), classes, seed=seed, index=index, stream=Stream.SAMPLE_LABEL)
    else:
        chosen = torch.as_tensor(labels, device=index.device)
        if chosen.ndim == 0:
            chosen = chosen.expand(n)
        if chosen.shape != (n,) or chosen.dtype.is_floating_point or chosen.dtype.is_complex:
            raise InputError(
                expected=f"one class or {n} integer classes",
                got=f"{chosen.dtype} of shape {tuple(chosen.shape)}",
                fix="give one class number for every image",
            )
        low, high = int(chosen.min()), int(chosen.max())
        if not 0 <= low <= high < classes:
            raise InputError(
                expected=f"labels in 0...{classes - 1}",
                got=f"{low}...{high}",
                fix="give class numbers that the model knows",
            )
    return F.one_hot(chosen.long(), classes).float()
