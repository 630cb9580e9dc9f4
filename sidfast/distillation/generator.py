"""The product: a network that makes an image in one call, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.diffusion import Denoiser
from sidfast.diffusion.sampling import sample_images
from sidfast.networks.files import load_network, save_network


class Generator:
    """A one-step generator G(z, c) = net(sigma_init * z, sigma_init, c).

    Attributes:
        network: a denoiser in eval mode, without gradients.
        sigma_init: noise level of the one call.
        record: what is known about its making, JSON-able.
    """

    network_calls = 1

    def __init__(
        self, network: nn.Module, sigma_init: float = 2.5, record: dict[str, Any] | None = None
    ) -> None:
        self.network = network
        self.sigma_init = sigma_init
        self.record = record or {}

    def sample(
        self, n: int, seed: int = 0, labels: Tensor | int | None = None, *, batch: int = 500
    ) -> Tensor:
        """Draw n images; image i depends on (seed, i, its label) alone, up to rounding.

        Args:
            n: number of images.
            seed: 64-bit integer.
            labels: classes, (n,) integers or one for all; None draws them uniformly where the
                network has classes.
            batch: images per network call.

        Returns:
            (n, C, H, W) float32 in [-1, 1], on the network's device.

        Raises:
            InputError: labels of the wrong number or range, or given to a network without
                classes.
        """

        def make(z: Tensor, onehot: Tensor | None) -> Tensor:
            sigma = z.new_full((len(z),), self.sigma_init)
            return self.network(z * self.sigma_init, sigma, onehot)

        return sample_images(cast(Denoiser, self.network), make, n, seed, labels, batch)

    def save(self, path: str | Path) -> None:
        """Write weights, architecture and record to one safetensors file, atomically."""
        save_network(self.network, path, {"sigma_init": self.sigma_init, "record": self.record})


def load_generator(
    path: str | Path, device: torch.device | str = "cpu", *, network: nn.Module | None = None
) -> Generator:
    """Read a generator that a run wrote.

    Args:
        path: the file `generator.safetensors`, or the run's folder.
        device: where it shall live.
        network: a module like the teacher, which gets the weights, for a generator whose teacher
            was not of `sidfast.networks`: `as_denoiser(net, ...)` where that made the teacher.

    Raises:
        InputError: no such file, an unfinished run, or not a whole generator file.
    """
    path = Path(path)
    if path.is_dir():
        run, path = path, path / "generator.safetensors"
        if not path.exists() and (run / "config.yaml").exists():
            raise InputError(
                expected=f"a finished run at {run}",
                got="one without generator.safetensors",
                fix="continue it: sidfast distill with --resume, sidfast.distill with resume=True",
            )
    network, extra = load_network(path, network)
    if "sigma_init" not in extra:
        raise InputError(
            expected=f"{path} to hold a generator",
            got="a network file without sigma_init",
            fix="pass the generator.safetensors of a run; load_teacher reads teachers",
        )
    network = network.to(device).eval().requires_grad_(False)
    return Generator(network, float(extra["sigma_init"]), extra.get("record"))
