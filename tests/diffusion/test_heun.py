"""The sampler on a Gaussian, whose denoiser and flow are known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sidfast.diffusion import Denoiser, Stream, heun_sample

MEAN, SPREAD = 0.3, 0.5


class GaussianDenoiser:
    """E[x0 | x] for x0 ~ N(MEAN, SPREAD^2): the posterior mean of two Gaussians."""

    img_channels, img_resolution, label_dim = 1, 4, 0

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        *,
        key: object = None,
    ) -> Tensor:
        assert x.dtype == sigma.dtype == torch.float32
        self.calls += 1
        variance = sigma.double().reshape(-1, 1, 1, 1) ** 2
        return (SPREAD**2 * x + variance * MEAN) / (SPREAD**2 + variance)


def exact_flow(latents: Tensor) -> Tensor:
    """The probability-flow ODE of a Gaussian scales deviations with the marginal's spread."""
    start = latents.double() * 80
    return MEAN + (start - MEAN) * SPREAD / (SPREAD**2 + 80.0**2) ** 0.5


def error(num_steps: int) -> float:
    latents = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    images = heun_sample(GaussianDenoiser(), latents, num_steps=num_steps)
    return (images - exact_flow(latents)).abs().max().item()


def test_converges_to_the_exact_flow() -> None:
    errors = [error(steps) for steps in (32, 64, 128)]
    assert errors[0] < 0.04
    # second order: halving the step divides the error by about four
    assert errors[0] / errors[1] > 3.5
    assert errors[1] / errors[2] > 3.5


def test_takes_35_calls_and_returns_float32() -> None:
    denoiser = GaussianDenoiser()
    images = heun_sample(denoiser, torch.zeros(2, 1, 4, 4))
    assert denoiser.calls == 35
    assert images.dtype == torch.float32 and not images.requires_grad


def test_labels_reach_the_network() -> None:
    labels = torch.eye(2)

    class Recorder(GaussianDenoiser):
        def __call__(
            self,
            x: Tensor,
            sigma: Tensor,
            class_labels: Tensor | None = None,
            augment_labels: Tensor | None = None,
            *,
            key: object = None,
        ) -> Tensor:
            assert class_labels is labels
            return super().__call__(x, sigma)

    heun_sample(Recorder(), torch.zeros(2, 1, 4, 4), labels, num_steps=2)


def test_protocol_is_structural() -> None:
    assert isinstance(GaussianDenoiser(), Denoiser)
    assert not isinstance(object(), Denoiser)


@pytest.mark.parametrize("stream", Stream)
def test_streams_leave_sixteen_bits(stream: Stream) -> None:
    assert stream & 0xFFFF == 0


def test_streams_are_distinct() -> None:
    assert len({int(stream) for stream in Stream}) == len(Stream.__members__)
    assert Stream.FAKE_LATENT == 1 << 24 and Stream.GENERATOR_SIGMA == (2 << 24) | (2 << 16)
