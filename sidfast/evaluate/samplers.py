"""What evaluation draws samples from."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sidfast.diffusion import Denoiser, heun_sample
from sidfast.diffusion.sampling import sample_images


class Sampler(Protocol):
    """Anything that makes images from a number and a seed.

    One that makes several network calls for an image says so in an attribute ``network_calls``.
    """

    def sample(self, n: int, seed: int = 0, labels: Tensor | None = None) -> Tensor:
        """Draw n images (n, C, H, W) in about [-1, 1]; labels (n,) int64, None: drawn uniformly."""


class TeacherSampler:
    """A diffusion model as a sampler: EDM's deterministic Heun steps from keyed latents.

    Image i depends on (seed, i) alone, whatever the batch size, up to float32 rounding.

    Args:
        denoiser: the model, in eval mode.
        num_steps: Heun steps; the last is an Euler step, hence 2 * num_steps - 1 network calls.
        batch: images per network call.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        num_steps: int = 18,
        batch: int = 500,
    ) -> None:
        self.denoiser = denoiser
        self.num_steps = num_steps
        self.batch = batch
        self.network_calls = 2 * num_steps - 1

    def sample(self, n: int, seed: int = 0, labels: Tensor | None = None) -> Tensor:
        """Draw n images, (n, C, H, W) float32 on the model's device, clamped to [-1, 1].

        Raises:
            InputError: labels for an unconditional model, not n of them, or out of range.
        """

        def make(latents: Tensor, onehot: Tensor | None) -> Tensor:
            return heun_sample(self.denoiser, latents, onehot, num_steps=self.num_steps)

        return sample_images(self.denoiser, make, n, seed, labels, self.batch)
