"""The product: a network that makes an image in one call, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.diffusion import Stream
from sidfast.networks.files import load_network, save_network
from sidfast.ops.random import integers, normal


class Generator:
    """A one-step generator G(z) = net(sigma_init * z, sigma_init, c).

    Attributes:
        network: a denoiser in eval mode, without gradients.
        sigma_init: noise level of the one call.
        record: what is known about its making, JSON-able.
    """

    def __init__(
        self, network: nn.Module, sigma_init: float = 2.5, record: dict[str, Any] | None = None
    ) -> None:
        self.network = network
        self.sigma_init = sigma_init
        self.record = record or {}

    @torch.no_grad()
    def sample(
        self, n: int, seed: int = 0, labels: Tensor | int | None = None, *, chunk: int = 1000
    ) -> Tensor:
        """Draw n images; image i depends on (seed, i, its label) and on nothing else.

        Args:
            n: number of images.
            seed: 64-bit integer.
            labels: classes, (n,) integers or one for all; None draws them uniformly where the
                network has classes.
            chunk: images per network call.

        Returns:
            (n, C, H, W) float32 in [-1, 1], on the network's device.

        Raises:
            InputError: labels of the wrong number or range, or given to a network without
                classes.
        """
        if n < 1:
            raise InputError(
                expected="a positive number of images", got=n, fix="ask for at least one"
            )
        net = self.network
        device = next(net.parameters()).device
        index = torch.arange(n, device=device)
        onehot = self._one_hot(n, seed, labels, index)
        shape = (net.img_channels, net.img_resolution, net.img_resolution)
        images = []
        for part in index.split(chunk):
            z = normal((len(part), *shape), seed=seed, index=part, stream=Stream.SAMPLE_LATENT)
            sigma = z.new_full((len(part),), self.sigma_init)
            classes = None if onehot is None else onehot[part]
            images.append(net(z * self.sigma_init, sigma, classes).clamp(-1, 1))
        return torch.cat(images)

    def _one_hot(
        self, n: int, seed: int, labels: Tensor | int | None, index: Tensor
    ) -> Tensor | None:
        classes = int(self.network.label_dim)  # type: ignore[arg-type]
        if not classes:
            if labels is not None:
                raise InputError(
                    expected="no labels, this generator has no classes",
                    got="labels",
                    fix="leave them out",
                )
            return None
        if labels is None:
            chosen = integers((n,), classes, seed=seed, index=index, stream=Stream.SAMPLE_LABEL)
        else:
            chosen = torch.as_tensor(labels, device=index.device).expand(n) if _single(
                labels
            ) else torch.as_tensor(labels, device=index.device)
            if chosen.is_floating_point() or chosen.shape != (n,):
                raise InputError(
                    expected=f"one class or {n} integer classes",
                    got=f"{tuple(chosen.shape)} {chosen.dtype}",
                    fix="pass labels of shape (n,)",
                )
            if int(chosen.min()) < 0 or int(chosen.max()) >= classes:
                raise InputError(
                    expected=f"classes from 0 to {classes - 1}",
                    got=f"{int(chosen.min())} to {int(chosen.max())}",
                    fix=f"the generator knows {classes} classes",
                )
        return nn.functional.one_hot(chosen.long(), classes).to(torch.float32)

    def save(self, path: str | Path) -> None:
        """Write weights, architecture and record to one safetensors file, atomically."""
        save_network(
            self.network, path, {"sigma_init": self.sigma_init, "record": self.record}
        )


def _single(labels: Tensor | int) -> bool:
    return not isinstance(labels, Tensor) or labels.ndim == 0


def load_generator(path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """Read a generator that a run wrote.

    Args:
        path: the file `generator.safetensors`, or the run's folder.
        device: where it shall live.

    Raises:
        InputError: no such file, or not a whole generator file.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "generator.safetensors"
    network, extra = load_network(path)
    if "sigma_init" not in extra:
        raise InputError(
            expected=f"{path} to hold a generator",
            got="a network file without sigma_init",
            fix="pass the generator.safetensors of a run; load_teacher reads teachers",
        )
    network = network.to(device).eval().requires_grad_(False)
    return Generator(network, float(extra["sigma_init"]), extra.get("record"))
