"""Noise schedules, the random streams, the `Denoiser` protocol and the Heun sampler.

Notation is EDM's (arXiv 2206.00364): x_t = x0 + sigma * eps with eps ~ N(0, I), and a denoiser
D(x_t, sigma) that predicts x0.
"""

from __future__ import annotations

from sidfast.diffusion.denoiser import Denoiser
from sidfast.diffusion.heun import heun_sample
from sidfast.diffusion.schedules import (
    edm_loss_weight,
    heun_sigmas,
    lognormal_sigma,
    uniform_t_sigma,
)
from sidfast.diffusion.streams import Stream

__all__ = [
    "Denoiser",
    "Stream",
    "edm_loss_weight",
    "heun_sample",
    "heun_sigmas",
    "lognormal_sigma",
    "uniform_t_sigma",
]
