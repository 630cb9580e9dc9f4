"""What evaluation asks of the images it is given, and the form it brings them into."""

from __future__ import annotations

import torch
from torch import Tensor

from sidfast.base.errors import InputError


def eight_bit(images: Tensor) -> Tensor:
    """Clamp to [-1, 1] and round to the 256 levels of an image file; float32, same shape.

    Distances are measured on what a viewer gets, so that values outside the range, or below an
    image file's resolution, neither help nor hurt.
    """
    levels = ((images.to(torch.float32).clamp(-1, 1) + 1) * 127.5).round()
    return levels / 127.5 - 1


def check_images(images: Tensor, what: str, *, at_least: int, like: Tensor | None = None) -> None:
    """Refuse images that cannot be measured.

    Args:
        images: (N, C, H, W), floating point.
        what: name of the images in the error message.
        at_least: the smallest N that makes sense.
        like: images whose (C, H, W) these must share.

    Raises:
        InputError: wrong dimensions or dtype, too few images, or NaN or Inf among them.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise InputError(
            expected=f"{what} as a floating-point (N, C, H, W) tensor in [-1, 1]",
            got=f"{images.dtype} of shape {tuple(images.shape)}",
            fix="stack the images and scale them to [-1, 1]",
        )
    if like is not None and images.shape[1:] != like.shape[1:]:
        raise InputError(
            expected=f"{what} of shape (N, {', '.join(map(str, like.shape[1:]))})",
            got=f"shape {tuple(images.shape)}",
            fix="compare images of one size and channel count",
        )
    if len(images) < at_least:
        raise InputError(
            expected=f"at least {at_least} {what}",
            got=len(images),
            fix="draw more: distances of small samples mean little",
        )
    broken = int((~images.isfinite()).flatten(1).any(1).sum())
    if broken:
        raise InputError(
            expected=f"finite {what}",
            got=f"NaN or Inf in {broken} of {len(images)} images",
            fix="check the network's weights and the training log for non-finite updates",
        )
