"""What a diffusion model must look like to be distilled."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Denoiser(Protocol):
    """A network that predicts the clean image: D(x_t, sigma, labels) ~ E[x0 | x_t].

    Attributes:
        img_channels: channels C of the images.
        img_resolution: height and width of the images, in pixels.
        label_dim: number of classes K, 0 for an unconditional model.
    """

    img_channels: int
    img_resolution: int
    label_dim: int

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        *,
        key: Any = None,
    ) -> Tensor:
        """Denoise x (B, C, H, W) at the noise levels sigma (B,), float32.

        Args:
            x: noisy images x0 + sigma * eps.
            sigma: noise levels, (B,) or anything that reshapes to (B, 1, 1, 1).
            class_labels: one-hot (B, K) float32; None asks for the unconditional prediction.
            augment_labels: (B, A) float32 augmentation parameters; None means not augmented.
            key: `sidfast.ops.random.Key` for keyed dropout in train mode; None leaves dropout to
                torch's global generator.

        Returns:
            The predicted clean images, (B, C, H, W) float32.
        """
        ...
