"""Foreign networks as denoisers.

Every parameterisation is brought to the prediction of x0 in EDM's notation x = x0 + sigma * eps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.teachers.check import check_teacher

Predict = Callable[[Tensor], Tensor]


def _from_x0(predict: Predict, x: Tensor, sigma: Tensor) -> Tensor:
    return predict(x)


def _from_epsilon(predict: Predict, x: Tensor, sigma: Tensor) -> Tensor:
    return x - sigma * predict(x)


def _from_v(predict: Predict, x: Tensor, sigma: Tensor) -> Tensor:
    scale = (1 + sigma**2).rsqrt()
    return scale**2 * x - sigma * scale * predict(scale * x)


_TO_X0 = {"x0": _from_x0, "epsilon": _from_epsilon, "v": _from_v}


class AdaptedDenoiser(nn.Module):
    """A foreign network, `module`, behind the `Denoiser` interface. Made by `as_denoiser`."""

    def __init__(
        self,
        module: nn.Module,
        prediction: str,
        img_channels: int,
        img_resolution: int,
        label_dim: int,
    ) -> None:
        super().__init__()
        self.module = module
        self.prediction = prediction
        self.img_channels = img_channels
        self.img_resolution = img_resolution
        self.label_dim = label_dim

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        *,
        key: Any = None,
    ) -> Tensor:
        """Predict x0, (B, C, H, W) float32; see `Denoiser`.

        `key` is not used: dropout inside a foreign network draws from torch's global generator.
        Raises `InputError` for augmentation labels, which a foreign network does not know.
        """
        if augment_labels is not None:
            raise InputError(
                expected="no augmentation labels for an adapted network",
                got=f"labels of shape {tuple(augment_labels.shape)}",
                fix="switch augmentation off",
            )
        x = x.to(torch.float32)
        sigma = sigma.to(torch.float32).reshape(-1, 1, 1, 1)

        def predict(scaled: Tensor) -> Tensor:
            levels = sigma.reshape(-1).expand(len(x))
            inputs = (scaled, levels, class_labels) if self.label_dim else (scaled, levels)
            output: Tensor = self.module(*inputs)
            return output.to(torch.float32)

        return _TO_X0[self.prediction](predict, x, sigma)


def as_denoiser(
    module: nn.Module,
    prediction: str = "x0",
    *,
    img_channels: int,
    img_resolution: int,
    label_dim: int = 0,
) -> AdaptedDenoiser:
    """Wrap `module(input, sigma[, class_labels])` as a denoiser and check that it can be distilled.

    With x = x0 + sigma * eps, the network is called with sigma (B,) float32 and, if `label_dim` is
    not zero, one-hot labels (B, label_dim), and predicts from

    - "x0": x itself the clean image;
    - "epsilon": x itself the noise, x0 = x - sigma * output;
    - "v": the variance-preserving x / sqrt(1 + sigma^2) the velocity
      (eps - sigma * x0) / sqrt(1 + sigma^2) of progressive distillation (arXiv 2202.00512), so
      x0 = (x - sigma * sqrt(1 + sigma^2) * output) / (1 + sigma^2).

    Raises:
        InputError: an unknown `prediction`, or whatever `check_teacher` finds.
    """
    if prediction not in _TO_X0:
        raise InputError(
            expected=f"prediction to be one of {', '.join(_TO_X0)}",
            got=repr(prediction),
            fix="convert other parameterisations to one of these in a module of your own",
        )
    adapted = AdaptedDenoiser(module, prediction, img_channels, img_resolution, label_dim)
    check_teacher(adapted)
    return adapted
