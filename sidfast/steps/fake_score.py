"""The fake score's update: it learns to denoise what the generator makes now."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sidfast.diffusion import lognormal_sigma
from sidfast.ops.score_losses import dsm_loss
from sidfast.optim import AdamEMA
from sidfast.steps.accumulate import accumulate
from sidfast.steps.augment import AugmentPipe
from sidfast.steps.config import StepConfig
from sidfast.steps.draws import Draws
from sidfast.steps.generator import generate
from sidfast.steps.networks import Networks


def fake_score_loss(
    fake: nn.Module,
    generator: nn.Module,
    draws: Draws,
    cfg: StepConfig,
    *,
    grad_scale: float = 1.0,
) -> Tensor:
    """Denoising loss of the fake score on fresh images of the generator (arXiv 2404.04057).

    Args:
        fake: f_psi with gradients.
        generator: frozen view of G.
        grad_scale: the upstream gradient that backward will be given, see `ops.dsm_loss`.

    Returns:
        (B,) float32, summed over C, H, W.
    """
    with torch.no_grad():
        images, labels = generate(generator, draws, cfg)
        key, augment_labels = draws.augment_key(), None
        if cfg.augment and key is not None:
            images, augment_labels = AugmentPipe(p=cfg.augment)(images, key)
        sigma = lognormal_sigma(draws.level("normal"), p_mean=cfg.p_mean, p_std=cfg.p_std)
        noisy = draws.add_noise(images, sigma)
    denoised = fake(noisy, sigma, labels, augment_labels, key=draws.dropout_key())
    return dsm_loss(images, denoised, sigma, cfg.sigma_data, grad_scale=grad_scale)


def fake_score_update(
    networks: Networks, optimizer: AdamEMA, rounds: Sequence[Draws], cfg: StepConfig, batch: int
) -> Tensor:
    """One optimizer step of f_psi over `rounds` of gradient accumulation.

    Args:
        batch: images of all rounds on this device, the denominator of the loss.

    Returns:
        Mean loss per sample, 0-d float32 on the device, before scaling.
    """
    scale = cfg.fake_loss_scale / batch
    total = accumulate(
        optimizer.param_groups[0]["params"],
        rounds,
        lambda draws: fake_score_loss(
            networks.fake, networks.generator_view, draws, cfg, grad_scale=scale
        ),
        scale,
    )
    optimizer.step()
    return total / batch
