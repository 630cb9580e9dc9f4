"""SiD's iteration as one would write it in a morning: eager torch, the formulas, plain loops."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sidfast import DistillConfig


class PlainDistiller:
    """The same updates as `sidfast.Distiller`, drawing from torch's global generator.

    Args:
        mark: called with the name of each phase of an iteration when it has ended.
    """

    def __init__(
        self,
        teacher: nn.Module,
        cfg: DistillConfig,
        mark: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.cfg, self.n_img, self.mark = cfg, 0, mark
        self.images_per_round = cfg.batch_device or cfg.batch
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
        cfg = self.cfg
        rounds = cfg.batch // self.images_per_round

        self.fake.requires_grad_(True)
        self.fake_optimizer.zero_grad(set_to_none=True)
        fake_loss = sum(self._fake_round() for _ in range(rounds))
        self._update(self.fake, self.fake_optimizer)
        self.mark("fake: nan_to_num, Adam")

        self.fake.requires_grad_(False).eval()
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss = sum(self._generator_round() for _ in range(rounds))
        self._update(self.generator, self.generator_optimizer)
        self.mark("generator: nan_to_num, Adam")
        self.fake.train()

        halflife = min(cfg.ema_halflife_kimg * 1000, (cfg.ema_rampup or 1e9) * self.n_img)
        beta = 0.5 ** (cfg.batch / max(halflife, 1e-8))
        with torch.no_grad():
            for average, parameter in zip(
                self.average.parameters(), self.generator.parameters(), strict=True
            ):
                average.copy_(parameter.lerp(average, beta))
        self.mark("EMA")
        self.n_img += cfg.batch
        return fake_loss / cfg.batch, loss / cfg.batch

    def _fake_round(self) -> Tensor:
        cfg = self.cfg
        with torch.no_grad():
            self.generator.eval()
            images = self.generate()
        self.mark("fake: G forward")
        sigma = (self._normal(len(images), 1, 1, 1) * cfg.p_std + cfg.p_mean).exp()
        weight = (sigma**2 + cfg.sigma_data**2) / (sigma * cfg.sigma_data) ** 2
        denoised = self.fake(images + sigma * torch.randn_like(images), sigma)
        loss = (weight * (denoised - images) ** 2).sum()
        self._inspect(loss)
        self.mark("fake: fake forward, loss")
        (loss * (cfg.fake_loss_scale / cfg.batch)).backward()
        self.mark("fake: backward")
        return loss.detach()

    def _generator_round(self) -> Tensor:
        cfg = self.cfg
        self.generator.train()
        images = self.generate()
        self.mark("generator: G forward")
        images.register_hook(lambda gradient: self.mark("generator: backward, teacher and fake"))
        t = torch.rand(len(images), 1, 1, 1, device=images.device) * cfg.t_max / 1000
        low, high = cfg.sigma_min ** (1 / cfg.rho), cfg.sigma_max ** (1 / cfg.rho)
        sigma = (high + (1 - t) * (low - high)) ** cfg.rho
        noisy = images + sigma * torch.randn_like(images)
        teacher_x0 = self.teacher(noisy, sigma)
        self.mark("generator: teacher forward")
        fake_x0 = self.fake(noisy, sigma)
        self.mark("generator: fake forward")
        self._inspect(images, teacher_x0, fake_x0)
        loss = plain_sid_loss(images, teacher_x0, fake_x0, cfg.alpha).sum()
        self._inspect(loss)
        self.mark("generator: loss")
        (loss * (cfg.generator_loss_scale / cfg.batch)).backward()
        self.mark("generator: backward, G")
        return loss.detach()

    def generate(self) -> Tensor:
        """Images of the generator, as many as a round has."""
        net, n = self.generator, self.images_per_round
        z = self._normal(n, net.img_channels, net.img_resolution, net.img_resolution)
        return net(self.cfg.sigma_init * z, self._constant(self.cfg.sigma_init, n))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=next(self.generator.parameters()).device)

    def _constant(self, value: float, n: int) -> Tensor:
        return torch.full((n,), value, device=next(self.generator.parameters()).device)

    def _inspect(self, *values: Tensor) -> None:
        """Where others would look at losses or for NaN."""

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
