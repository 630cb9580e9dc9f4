"""SiD's iteration as one would write it in a morning: eager torch, the formulas, plain loops."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sidfast import DistillConfig


class PlainDistiller:
    """The same updates as `sidfast.Distiller`, drawing from torch's global generator."""

    def __init__(self, teacher: nn.Module, cfg: DistillConfig) -> None:
        self.cfg, self.n_img = cfg, 0
        self.teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.fake = copy.deepcopy(teacher).train().requires_grad_(True)
        self.generator = copy.deepcopy(teacher).train().requires_grad_(True)
        self.average = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.fake_optimizer = torch.optim.Adam(
            self.fake.parameters(), cfg.lr, (cfg.beta1, cfg.beta2), cfg.eps
        )
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(),
            cfg.generator_rate,
            (cfg.generator_beta1, cfg.beta2),
            cfg.eps,
        )

    def step(self) -> tuple[Tensor, Tensor]:
        """One iteration; the two losses, means per sample."""
        cfg, net = self.cfg, self.generator
        shape = (cfg.batch, net.img_channels, net.img_resolution, net.img_resolution)
        device = next(net.parameters()).device

        self.fake.requires_grad_(True)
        with torch.no_grad():
            self.generator.eval()
            images = self.generator(
                cfg.sigma_init * torch.randn(shape, device=device),
                torch.full((cfg.batch,), cfg.sigma_init, device=device),
            )
        sigma = (torch.randn(cfg.batch, 1, 1, 1, device=device) * cfg.p_std + cfg.p_mean).exp()
        weight = (sigma**2 + cfg.sigma_data**2) / (sigma * cfg.sigma_data) ** 2
        denoised = self.fake(images + sigma * torch.randn_like(images), sigma)
        fake_loss = (weight * (denoised - images) ** 2).sum()
        self.fake_optimizer.zero_grad(set_to_none=True)
        (fake_loss * (cfg.fake_loss_scale / cfg.batch)).backward()
        self._update(self.fake, self.fake_optimizer)

        self.fake.requires_grad_(False).eval()
        self.generator.train()
        images = self.generator(
            cfg.sigma_init * torch.randn(shape, device=device),
            torch.full((cfg.batch,), cfg.sigma_init, device=device),
        )
        t = torch.rand(cfg.batch, 1, 1, 1, device=device) * cfg.t_max / 1000
        low, high = cfg.sigma_min ** (1 / cfg.rho), cfg.sigma_max ** (1 / cfg.rho)
        sigma = (high + (1 - t) * (low - high)) ** cfg.rho
        noisy = images + sigma * torch.randn_like(images)
        loss = plain_sid_loss(
            images, self.teacher(noisy, sigma), self.fake(noisy, sigma), cfg.alpha
        ).sum()
        self.generator_optimizer.zero_grad(set_to_none=True)
        (loss * (cfg.generator_loss_scale / cfg.batch)).backward()
        self._update(self.generator, self.generator_optimizer)
        self.fake.train()

        halflife = min(cfg.ema_halflife_kimg * 1000, (cfg.ema_rampup or 1e9) * self.n_img)
        beta = 0.5 ** (cfg.batch / max(halflife, 1e-8))
        with torch.no_grad():
            for average, parameter in zip(
                self.average.parameters(), self.generator.parameters(), strict=True
            ):
                average.copy_(parameter.lerp(average, beta))
        self.n_img += cfg.batch
        return fake_loss.detach() / cfg.batch, loss.detach() / cfg.batch

    def _update(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for parameter in network.parameters():
            if parameter.grad is not None:
                torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        optimizer.step()


def plain_sid_loss(images: Tensor, teacher_x0: Tensor, fake_x0: Tensor, alpha: float) -> Tensor:
    """SiD's loss in plain torch, (B,)."""
    with torch.no_grad():
        weight = (images - teacher_x0).abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-5)
    difference = teacher_x0 - fake_x0
    loss = difference * ((teacher_x0 - images) - alpha * difference) / weight
    return loss.sum((1, 2, 3))
