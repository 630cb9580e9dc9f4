"""Noise levels against a float64 oracle, the paper's numbers and the authors' code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sidfast.base.errors import InputError
from sidfast.diffusion import edm_loss_weight, heun_sigmas, lognormal_sigma, uniform_t_sigma
from sidfast.testing.goldens import golden


def rho_curve(t: float) -> float:
    """method of SiD in plain Python floats: t = 1 is sigma_max, t = 0 is sigma_min."""
    high, low = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    return (high + (1 - t) * (low - high)) ** 7


@pytest.fixture
def sigma_grid() -> dict[str, np.ndarray]:
    with golden("sigma_grid.npz") as archive:
        return dict(archive)


def test_uniform_t_has_the_papers_range_and_median() -> None:
    sigma = uniform_t_sigma(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).tolist()
    assert sigma == pytest.approx([0.002, 0.965, 24.41], rel=1e-3)


@pytest.mark.parametrize("t_max", [800, 1000])
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-13), (torch.float32, 3e-6)])
def test_uniform_t_against_the_oracle(t_max: int, dtype: torch.dtype, rel: float) -> None:
    u = torch.linspace(0, 1, 101, dtype=dtype)
    expected = [rho_curve(value * t_max / 1000) for value in u.tolist()]
    sigma = uniform_t_sigma(u, t_max=t_max)
    assert sigma.dtype == dtype
    assert sigma.tolist() == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize("t_max", [800, 1000])
def test_uniform_t_against_the_authors(sigma_grid: dict[str, np.ndarray], t_max: int) -> None:
    u = torch.from_numpy(sigma_grid["u"])
    sigma = uniform_t_sigma(u, t_max=t_max).numpy()
    np.testing.assert_allclose(sigma, sigma_grid[f"sigma_tmax{t_max}_f64"], rtol=1e-12)
    drawn = uniform_t_sigma(torch.from_numpy(sigma_grid[f"rnd_u_tmax{t_max}"])).dtype
    assert drawn == torch.float32
    single = uniform_t_sigma(torch.from_numpy(sigma_grid[f"rnd_u_tmax{t_max}"]), t_max=t_max)
    np.testing.assert_allclose(single, sigma_grid[f"rnd_sigma_tmax{t_max}_f32"], rtol=3e-6)


def test_loss_weight(sigma_grid: dict[str, np.ndarray]) -> None:
    weight = edm_loss_weight(torch.from_numpy(sigma_grid["sigma"])).numpy()
    np.testing.assert_allclose(weight, sigma_grid["edm_weight"], rtol=1e-12)


def test_loss_weight_undoes_the_preconditioning() -> None:
    sigma = torch.logspace(-2, 2, 9, dtype=torch.float64)
    c_out = sigma * 0.5 / (sigma**2 + 0.25).sqrt()
    torch.testing.assert_close(edm_loss_weight(sigma), c_out**-2)


def test_lognormal_sigma() -> None:
    normal = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    expected = [math.exp(-1.2 + 1.2 * n) for n in normal.tolist()]
    assert lognormal_sigma(normal).tolist() == pytest.approx(expected, rel=1e-14)


def test_heun_grid() -> None:
    sigmas = heun_sigmas(18)
    assert sigmas.dtype == torch.float64 and sigmas.shape == (19,)
    expected = [rho_curve(1 - step / 17) for step in range(18)] + [0.0]
    assert sigmas.tolist() == pytest.approx(expected, rel=1e-12)
    assert sigmas[-1] == 0


def test_heun_grid_needs_two_steps() -> None:
    with pytest.raises(InputError, match="num_steps >= 2"):
        heun_sigmas(1)
