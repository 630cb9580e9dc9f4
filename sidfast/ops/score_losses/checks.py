"""What the doors of the losses check."""

from __future__ import annotations

from math import inf, isfinite

from torch import Tensor

from sidfast.base.checks import FLOATS, check_device, check_dtype, check_tensor, per_sample
from sidfast.base.errors import InputError
from sidfast.base.key import check_indexed, seed_tensor


def agree(images: Tensor, *others: Tensor) -> bool:
    """Whether the batches are float tensors of one shape (B, ...) on one device."""
    if not isinstance(images, Tensor):
        return False
    shape, device = images.shape, images.device
    if not len(shape) or images.dtype not in FLOATS:
        return False
    for other in others:
        if not isinstance(other, Tensor) or other.shape != shape:
            return False
        if other.device != device or other.dtype not in FLOATS:
            return False
    return True


def explain(
    images: Tensor, grad_scale: float, others: dict[str, Tensor], **positive: float
) -> None:
    """Raise the InputError of the first of the arguments that does not fit."""
    for name, value in {"images": images, **others}.items():
        check_tensor(name, value)
    for name, other in others.items():
        if images.shape != other.shape or images.dim() == 0:
            raise InputError(
                expected=f"images and {name} of one shape (B, ...)",
                got=f"{tuple(images.shape)} and {tuple(other.shape)}",
                fix="pass the same batch to both",
            )
        check_device("images", images, name, other)
    for name, tensor in {"images": images, **others}.items():
        check_dtype(name, tensor.dtype)
    for name, number in positive.items():
        if not 0 < number < inf:
            raise InputError(
                expected=f"{name} > 0", got=number, fix="pass a positive finite number"
            )
    if grad_scale == 0 or not isfinite(grad_scale):
        raise InputError(
            expected="a finite grad_scale other than 0", got=grad_scale, fix="pass 1.0 if in doubt"
        )


def noise_and_preconditioning(
    images: Tensor,
    noisy: Tensor | None,
    sigma: Tensor,
    seed: int | Tensor | None,
    index: Tensor | None,
    stream: int,
    c_skip: Tensor,
    c_out: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor | None, int, Tensor, Tensor]:
    """What the operators on raw outputs take after their batches: noise and preconditioning."""
    return (
        per_sample("sigma", sigma, "images", images),
        _noise_key(images, noisy, seed, index, stream),
        index,
        stream,
        per_sample("c_skip", c_skip, "images", images),
        per_sample("c_out", c_out, "images", images),
    )


def _noise_key(
    images: Tensor,
    noisy: Tensor | None,
    seed: int | Tensor | None,
    index: Tensor | None,
    stream: int,
) -> Tensor | None:
    """The seed as a tensor, or None where `noisy` stands for what the key would make.

    Raises:
        InputError: both or neither are given, or the key does not fit the images.
    """
    if noisy is not None and seed is None and index is None:
        return None
    if noisy is not None or seed is None or index is None:
        given = {"noisy": noisy, "seed": seed, "index": index}
        raise InputError(
            expected="either noisy, or seed and index",
            got=" and ".join(k for k, v in given.items() if v is not None) or "none of them",
            fix="pass the noisy images, or the key that add_noise made them with",
        )
    check_indexed(images.shape, index)
    check_device("images", images, "index", index)
    return seed_tensor(seed, index, stream)
