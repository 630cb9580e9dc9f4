"""Adapters on a Gaussian, whose best prediction is known for every parameterisation."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.diffusion import Denoiser, heun_sample
from sidfast.teachers import as_denoiser

MEAN, SPREAD = 0.2, 0.5
SIGMAS = torch.tensor([0.002, 0.02, 0.5, 1.0, 7.0, 80.0])
SHAPE = {"img_channels": 1, "img_resolution": 4}


def posterior_mean(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x0 + sigma * eps = x] for x0 ~ N(MEAN, SPREAD^2)."""
    variance = sigma.reshape(-1, 1, 1, 1) ** 2
    return (SPREAD**2 * x + variance * MEAN) / (SPREAD**2 + variance)


def posterior_noise(x: Tensor, sigma: Tensor) -> Tensor:
    """E[eps | x], from the joint Gaussian of (eps, x) rather than from E[x0 | x]."""
    level = sigma.reshape(-1, 1, 1, 1)
    return level * (x - MEAN) / (SPREAD**2 + level**2)


def posterior_velocity(z: Tensor, sigma: Tensor) -> Tensor:
    """E[v | z] with z = cos(a) x0 + sin(a) eps, v = cos(a) eps - sin(a) x0, tan(a) = sigma.

    Regression in the joint Gaussian of (v, z), in the angle's terms alone.
    """
    angle = torch.atan(sigma).reshape(-1, 1, 1, 1)
    cos, sin = angle.cos(), angle.sin()
    covariance = cos * sin * (1 - SPREAD**2)
    variance = (cos * SPREAD) ** 2 + sin**2
    return -sin * MEAN + covariance / variance * (z - cos * MEAN)


class Exact(nn.Module):
    def __init__(self, predict: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.predict = predict
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (len(x),)
        return self.gain * self.predict(x, sigma)


EXACT = {"x0": posterior_mean, "epsilon": posterior_noise, "v": posterior_velocity}


@pytest.mark.parametrize("prediction", EXACT)
def test_every_parameterisation_gives_the_posterior_mean(prediction: str) -> None:
    denoiser = as_denoiser(Exact(EXACT[prediction]).double(), prediction, **SHAPE)
    noise = torch.randn(len(SIGMAS), 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x = MEAN + SIGMAS.reshape(-1, 1, 1, 1) * noise
    x0 = denoiser(x, SIGMAS)
    assert x0.dtype == torch.float32 and isinstance(denoiser, Denoiser)
    # x0 is a difference of terms of the size of x: float32 rounding grows with sigma
    torch.testing.assert_close(x0, posterior_mean(x, SIGMAS), rtol=0, atol=2e-5)


@pytest.mark.parametrize("prediction", EXACT)
def test_adapted_teachers_sample_alike(prediction: str) -> None:
    latents = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = heun_sample(as_denoiser(Exact(posterior_mean), "x0", **SHAPE), latents)
    adapted = as_denoiser(Exact(EXACT[prediction]), prediction, **SHAPE)
    torch.testing.assert_close(heun_sample(adapted, latents), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("prediction", EXACT)
def test_gradients_reach_input_and_weights(prediction: str) -> None:
    denoiser = as_denoiser(Exact(EXACT[prediction]), prediction, **SHAPE)
    x = torch.randn(2, 1, 4, 4, requires_grad=True)
    denoiser(x, torch.tensor([0.5, 1.0])).sum().backward()
    expected = SPREAD**2 / (SPREAD**2 + torch.tensor([0.5, 1.0]) ** 2)
    assert x.grad is not None
    torch.testing.assert_close(x.grad[:, 0, 0, 0], expected)
    assert denoiser.module.gain.grad is not None


def test_a_copy_is_independent_and_shares_state_names() -> None:
    denoiser = as_denoiser(Exact(posterior_mean), **SHAPE)
    other = copy.deepcopy(denoiser)
    other.module.gain.data.zero_()
    assert denoiser.module.gain == 1
    other.load_state_dict(denoiser.state_dict())
    assert other.module.gain == 1


def test_labels_are_passed_only_to_conditional_networks() -> None:
    class Shifted(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
            shift = 0 if labels is None else labels.argmax(1).reshape(-1, 1, 1, 1)
            return x + 0.1 * shift

    denoiser = as_denoiser(Shifted(), label_dim=3, **SHAPE)
    x0 = denoiser(torch.zeros(3, 1, 4, 4), torch.ones(3), torch.eye(3))
    assert x0[:, 0, 0, 0].tolist() == pytest.approx([0, 0.1, 0.2])


def test_unknown_prediction_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="x0, epsilon, v, got 'flow'"):
        as_denoiser(Exact(posterior_mean), "flow", **SHAPE)


def test_noise_passed_off_as_an_image_is_found_out() -> None:
    with pytest.raises(InputError, match=r"predicts the clean image.*epsilon"):
        as_denoiser(Exact(posterior_noise), "x0", **SHAPE)


def test_augmentation_labels_are_refused() -> None:
    denoiser = as_denoiser(Exact(posterior_mean), **SHAPE)
    with pytest.raises(InputError, match="augmentation"):
        denoiser(torch.zeros(1, 1, 4, 4), torch.ones(1), None, torch.zeros(1, 9))
