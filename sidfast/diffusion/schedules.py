"""Noise levels: which sigma each update trains on, and which the sampler visits.

Sources: EDM (arXiv 2206.00364), eq. 5 for the sampler's grid and table 1 for the training
distribution and weight; SiD (arXiv 2404.04057) for the generator update, which walks the same
rho-curve with a uniform t instead of EDM's log-normal sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sidfast.base.errors import InputError


def uniform_t_sigma(
    u: Tensor,
    *,
    t_max: float = 800,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Tensor:
    """Noise levels of SiD's generator update: t = u * t_max / 1000 on EDM's rho-curve.

    sigma(t) = (sigma_min^(1/rho) + t * (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho, so t = 0 is
    sigma_min, t = 1 would be sigma_max, and t_max = 800 keeps sigma within [0.002, 24.41] with
    median 0.965.

    Args:
        u: uniform draws in [0, 1), any shape, any float dtype.
        t_max: end of the t range in thousandths (the paper's default is 800).

    Returns:
        sigma, of u's shape, dtype and device.
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    t = u * (t_max / 1000)
    return (low + t * (high - low)) ** rho


def lognormal_sigma(n: Tensor, *, p_mean: float = -1.2, p_std: float = 1.2) -> Tensor:
    """EDM's training noise levels exp(p_mean + p_std * n) for standard normal draws n.

    Used by the fake score's update and by teacher training. Shape and dtype are n's.
    """
    return (n * p_std + p_mean).exp()


def edm_loss_weight(sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """EDM's loss weight (sigma^2 + sigma_data^2) / (sigma * sigma_data)^2 (table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def heun_sigmas(
    num_steps: int = 18,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """The sampler's noise levels (EDM, eq. 5), largest first, closed by an exact 0.

    Returns:
        float64, shape (num_steps + 1,); num_steps must be at least 2, else `InputError`.
    """
    if num_steps < 2:
        raise InputError(
            expected="num_steps >= 2 for the Heun sampler",
            got=num_steps,
            fix="use 18, the paper's setting for small images",
        )
    step = torch.arange(num_steps, dtype=torch.float64, device=device) / (num_steps - 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (high + step * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])
