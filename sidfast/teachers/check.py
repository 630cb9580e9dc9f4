"""Can this model be distilled? Asked once, before anything is trained."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.diffusion import Denoiser
from sidfast.diffusion.sampling import device_of

LOW_SIGMA, MIDDLE_SIGMA = 0.02, 1.0
# An x0-prediction differs from its input by a few percent at LOW_SIGMA; an epsilon- or velocity-
# prediction has nothing to do with it (relative difference of one or more).
MAX_LOW_SIGMA_CHANGE = 0.5


def check_teacher(teacher: nn.Module) -> None:
    """Raise `InputError` unless `teacher` is a `Denoiser` that can be distilled.

    Checked: it is a module with the attributes of `Denoiser`; its weights are finite; called on
    two probe images at sigma 0.02 and 1, it answers with finite images of the same shape; and at
    sigma 0.02 it gives back about what it was given, as only a prediction of x0 does.
    """
    if not isinstance(teacher, nn.Module):
        raise InputError(
            expected="a teacher that is a torch.nn.Module",
            got=type(teacher).__name__,
            fix="load one with sidfast.load_teacher or wrap yours with teachers.as_denoiser",
        )
    for name in ("img_channels", "img_resolution", "label_dim"):
        value = getattr(teacher, name, None)
        if not isinstance(value, int):
            raise InputError(
                expected=f"a teacher with the integer attribute {name}",
                got="none" if value is None else repr(value),
                fix="wrap it with sidfast.teachers.as_denoiser, which sets it",
            )
    _check_weights(teacher)
    _check_probe(cast(Denoiser, teacher), device_of(teacher))


def _check_weights(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise InputError(
                expected="a teacher with float32 weights, from which the learning copies start",
                got=f"{parameter.dtype} in {name}",
                fix="call teacher.float() first",
            )
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                expected="a teacher with finite weights",
                got=f"NaN or infinity in {name}",
                fix="load an intact checkpoint",
            )


def _check_probe(denoiser: Denoiser, device: torch.device) -> None:
    x, sigma, labels = _probe(denoiser, device)
    try:
        with torch.no_grad():
            output = denoiser(x, sigma, labels, None, key=None)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            expected=f"a teacher that takes images {tuple(x.shape)}, sigma {tuple(sigma.shape)} "
            f"class labels {None if labels is None else tuple(labels.shape)}, augmentation "
            "labels None and key=None",
            got=f"{type(error).__name__}: {reason}",
            fix="check img_channels, img_resolution and label_dim; as_denoiser(net, 'x0', ...) "
            "wraps a network that takes images and sigma only",
        ) from error
    if not isinstance(output, Tensor) or output.shape != x.shape:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            expected=f"a teacher whose output has its input's shape {tuple(x.shape)}",
            got=got,
            fix="a network that predicts a variance as well must return the first half only",
        )
    if not torch.isfinite(output).all():
        raise InputError(
            expected="a teacher with finite outputs",
            got="NaN or infinity at sigma 0.02 or 1",
            fix="check that it was loaded completely and runs in a precision that it can bear",
        )
    change = ((output[0] - x[0]).norm() / x[0].norm()).item()
    if change > MAX_LOW_SIGMA_CHANGE:
        raise InputError(
            expected=f"a teacher that predicts the clean image, so D(x, sigma) ~ x at {LOW_SIGMA}",
            got=f"an output that differs from its input by {change:.0%}",
            fix='if the network predicts noise or velocity, wrap it: as_denoiser(net, "epsilon")',
        )


def _probe(denoiser: Denoiser, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Two smooth images within the data's range, so that nothing random decides the verdict."""
    side, channels = denoiser.img_resolution, denoiser.img_channels
    ramp = torch.linspace(-1, 1, channels * side * side, device=device)
    x = ramp.reshape(1, channels, side, side).repeat(2, 1, 1, 1)
    sigma = torch.tensor([LOW_SIGMA, MIDDLE_SIGMA], device=device)
    if denoiser.label_dim == 0:
        return x, sigma, None
    return x, sigma, torch.eye(denoiser.label_dim, device=device)[[0, -1]]
