"""Where an update's random numbers come from: keys in a run, tensors in a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sidfast.base.kept import kept
from sidfast.diffusion import Stream
from sidfast.ops.random import Key, add_noise, integers, normal, uniform


class Draws(Protocol):
    """The random numbers of one round (one micro-batch of B samples) of one update."""

    def latents(self, image_shape: Sequence[int]) -> Tensor:
        """Unit normal, (B, *image_shape) float32."""
        ...

    def labels(self, classes: int, probabilities: Sequence[float] | None) -> Tensor | None:
        """One-hot (B, classes) float32; None where there are no classes."""
        ...

    def level(self, distribution: str) -> Tensor:
        """What the noise level is made of: (B,) float32, 'normal' or 'uniform' in [0, 1)."""
        ...

    def add_noise(self, images: Tensor, sigma: Tensor) -> Tensor:
        """images + sigma * eps, with gradient to the images."""
        ...

    def dropout_key(self) -> Key | None:
        """Key of the networks' dropout; None leaves it to torch's global generator."""
        ...

    def augment_key(self) -> Key | None:
        """Key of the augmentation; None where nothing may be augmented."""
        ...


@dataclass(frozen=True)
class KeyedDraws:
    """Draws that are a pure function of (seed, sample index), whatever the batch split.

    Attributes:
        update: "FAKE" or "GENERATOR", the update whose streams are drawn from.
        seed: 0-d int64 tensor.
        index: (B,) int64 tensor, the running numbers of the samples in the run.
    """

    update: str
    seed: Tensor
    index: Tensor

    def _key(self, purpose: str) -> Key:
        return Key(self.seed, self.index, int(Stream[f"{self.update}_{purpose}"]))

    def latents(self, image_shape: Sequence[int]) -> Tensor:
        return normal((len(self.index), *image_shape), **self._key("LATENT")._asdict())

    def labels(self, classes: int, probabilities: Sequence[float] | None) -> Tensor | None:
        if not classes:
            return None
        shape, key = (len(self.index),), self._key("LABEL")._asdict()
        if probabilities is None:
            chosen = integers(shape, classes, **key)
        else:
            edges = _edges(tuple(probabilities), self.index.device)
            chosen = torch.searchsorted(edges, uniform(shape, **key), right=True)
            chosen = chosen.clamp(max=classes - 1)
        return torch.nn.functional.one_hot(chosen, classes).to(torch.float32)

    def level(self, distribution: str) -> Tensor:
        draw = {"normal": normal, "uniform": uniform}[distribution]
        return draw((len(self.index),), **self._key("SIGMA")._asdict())

    def add_noise(self, images: Tensor, sigma: Tensor) -> Tensor:
        return add_noise(images, sigma, **self._key("NOISE")._asdict())

    def dropout_key(self) -> Key | None:
        return self._key("DROPOUT")

    def augment_key(self) -> Key | None:
        return self._key("AUGMENT")


@kept
def _edges(probabilities: tuple[float, ...], device: torch.device) -> Tensor:
    """Their running sums, the same on every device; to send them each time would wait for it."""
    return torch.tensor(probabilities, device="cpu").cumsum(0).to(device)


@dataclass(frozen=True)
class RecordedDraws:
    """Draws replayed from tensors, as another program recorded them.

    Attributes:
        z: (B, C, H, W) unit normal latents.
        noise_level: (B,) or (B, 1, 1, 1), normal for the fake score's update and uniform for
            the generator's.
        eps: (B, C, H, W) unit normal noise.
        class_labels: one-hot (B, K) or None.
    """

    z: Tensor
    noise_level: Tensor
    eps: Tensor
    class_labels: Tensor | None = None

    def latents(self, image_shape: Sequence[int]) -> Tensor:
        return self.z

    def labels(self, classes: int, probabilities: Sequence[float] | None) -> Tensor | None:
        return self.class_labels

    def level(self, distribution: str) -> Tensor:
        return self.noise_level.flatten()

    def add_noise(self, images: Tensor, sigma: Tensor) -> Tensor:
        return images + sigma.reshape(-1, 1, 1, 1) * self.eps

    def dropout_key(self) -> Key | None:
        return None

    def augment_key(self) -> Key | None:
        return None
