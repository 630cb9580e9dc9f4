"""The generator's update: the score identity loss through teacher and fake score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from sidfast.diffusion import Denoiser, uniform_t_sigma
from sidfast.ops.random import Key
from sidfast.ops.score_losses import sid_loss
from sidfast.optim import AdamEMA
from sidfast.steps.accumulate import accumulate
from sidfast.steps.config import StepConfig
from sidfast.steps.draws import Draws
from sidfast.steps.networks import Networks


def generate(
    generator: nn.Module, draws: Draws, cfg: StepConfig, *, key: Key | None = None
) -> tuple[Tensor, Tensor | None]:
    """Fresh images y = G(sigma_init * z, sigma_init, c), and their labels c.

    Args:
        key: of the generator's dropout; None in eval mode.

    Returns:
        images (B, C, H, W) float32 and one-hot labels (B, K), or None without classes.
    """
    net = cast(Denoiser, generator)
    z = draws.latents((net.img_channels, net.img_resolution, net.img_resolution))
    labels = draws.labels(net.label_dim, cfg.class_probabilities)
    sigma = z.new_full((len(z),), cfg.sigma_init)
    return net(z * cfg.sigma_init, sigma, labels, key=key), labels


def generator_loss(
    networks: Networks, draws: Draws, cfg: StepConfig, *, grad_scale: float = 1.0
) -> Tensor:
    """SiD's loss L2 - alpha * L1 (arXiv 2404.04057, the score identity loss).

    Gradients reach the generator along three paths: through the loss itself and through the
    inputs of teacher and fake score, whose weights get none.

    Args:
        grad_scale: the upstream gradient that backward will be given, see `ops.sid_loss`.

    Returns:
        (B,) float32, summed over C, H, W.
    """
    images, labels = generate(networks.generator, draws, cfg, key=draws.dropout_key())
    sigma = uniform_t_sigma(
        draws.level("uniform"),
        t_max=cfg.t_max,
        sigma_min=cfg.sigma_min,
        sigma_max=cfg.sigma_max,
        rho=cfg.rho,
    )
    noisy = draws.add_noise(images, sigma)
    teacher_x0 = networks.teacher(noisy, sigma, labels)
    fake_x0 = networks.fake_view(noisy, sigma, labels)
    return sid_loss(images, teacher_x0, fake_x0, cfg.alpha, cfg.weight_floor, grad_scale=grad_scale)


def generator_update(
    networks: Networks,
    optimizer: AdamEMA,
    rounds: Sequence[Draws],
    cfg: StepConfig,
    batch: int,
    ema_beta: float,
) -> Tensor:
    """One optimizer step of G over `rounds` of gradient accumulation, then its EMA.

    Args:
        batch: images of all rounds on this device, the denominator of the loss.
        ema_beta: share of the old average that stays, `optim.ema_beta`.

    Returns:
        Mean loss per sample, 0-d float32 on the device, before scaling.
    """
    scale = cfg.generator_loss_scale / batch
    total = accumulate(
        optimizer.param_groups[0]["params"],
        rounds,
        lambda draws: generator_loss(networks, draws, cfg, grad_scale=scale),
        scale,
    )
    optimizer.step(ema_beta=ema_beta)
    return total / batch
