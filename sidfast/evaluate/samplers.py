"""What evaluation draws samples from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sidfast.base.errors import InputError
from sidfast.diffusion import Denoiser, Stream, heun_sample
from sidfast.ops import integers, normal


class Sampler(Protocol):
    """Anything that makes images from a number and a seed."""

    network_calls: int

    def sample(self, n: int, seed: int = 0, labels: Tensor | None = None) -> Tensor:
        """Draw n images (n, C, H, W) in about [-1, 1]; labels (n,) int64, None: drawn uniformly."""


class TeacherSampler:
    """A diffusion model as a sampler: EDM's deterministic Heun steps from keyed latents.

    Image i depends on (seed, i) alone, whatever the batch size, up to float32 rounding.

    Args:
        denoiser: the model, in eval mode.
        num_steps: Heun steps; the last is an Euler step, hence 2 * num_steps - 1 network calls.
        batch: images per network call.
        progress: called with the number of images done after every batch.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        num_steps: int = 18,
        batch: int = 500,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.denoiser = denoiser
        self.num_steps = num_steps
        self.batch = batch
        self.progress = progress
        self.network_calls = 2 * num_steps - 1

    def sample(self, n: int, seed: int = 0, labels: Tensor | None = None) -> Tensor:
        """Draw n images, (n, C, H, W) float32 on the model's device, clamped to [-1, 1].

        Raises:
            InputError: labels for an unconditional model, not n of them, or out of range.
        """
        net = self.denoiser
        device = device_of(net)
        index = torch.arange(n, device=device)
        if labels is None and net.label_dim:
            labels = integers(
                (n,), net.label_dim, seed=seed, index=index, stream=Stream.SAMPLE_LABEL
            )
        if labels is not None:
            _check_labels(labels, n, net.label_dim)
        images = []
        for chunk in index.split(self.batch):
            shape = (len(chunk), net.img_channels, net.img_resolution, net.img_resolution)
            latents = normal(shape, seed=seed, index=chunk, stream=Stream.SAMPLE_LATENT)
            onehot = None
            if labels is not None:
                onehot = F.one_hot(labels.to(device)[chunk], net.label_dim).float()
            images.append(heun_sample(net, latents, onehot, num_steps=self.num_steps).clamp(-1, 1))
            if self.progress is not None:
                self.progress(int(chunk[-1]) + 1)
        return torch.cat(images)


def device_of(net: object) -> torch.device:
    """Where a network's parameters are; the CPU for anything without parameters."""
    if isinstance(net, nn.Module):
        for parameter in net.parameters():
            return parameter.device
    return torch.device("cpu")


def _check_labels(labels: Tensor, n: int, label_dim: int) -> None:
    if not label_dim:
        raise InputError(
            expected="labels=None for an unconditional model", got="labels", fix="leave them out"
        )
    if labels.shape != (n,) or labels.is_floating_point():
        raise InputError(
            expected=f"labels of shape ({n},), integers",
            got=f"{labels.dtype} of shape {tuple(labels.shape)}",
            fix="give one class number for every image",
        )
    if n and not 0 <= int(labels.min()) <= int(labels.max()) < label_dim:
        raise InputError(
            expected=f"labels in 0...{label_dim - 1}",
            got=f"{int(labels.min())}...{int(labels.max())}",
            fix="give class numbers that the model knows",
        )
