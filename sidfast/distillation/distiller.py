"""One distillation, step by step, for people with a loop of their own."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.base.lanes import lane_count
from sidfast.base.memory import keep_freed_memory
from sidfast.base.precision import full_float32
from sidfast.diffusion import Denoiser
from sidfast.diffusion.sampling import device_of
from sidfast.distillation.config import DistillConfig
from sidfast.distillation.generator import Generator
from sidfast.networks import can_rebuild
from sidfast.optim import AdamEMA, ema_beta
from sidfast.steps import KeyedDraws, Networks, fake_score_update, generator_update
from sidfast.steps.augment import LABEL_DIM
from sidfast.teachers import check_teacher

# Below this many images a convolution has too little work to fill a CPU core.
LEAST_PER_LANE = 16


class Distiller:
    """The networks, optimizers and image counter of one run (arXiv 2404.04057, algorithm 1).

    Args:
        teacher: a denoiser (see `sidfast.diffusion.Denoiser`); its device is the run's. It is
            never changed, and must not be while the run lasts: its memory is shared.
        cfg: the run; None is `DistillConfig()`.

    Attributes:
        n_img: images seen by each of the two updates so far.

    Raises:
        InputError: the teacher is no denoiser, holds NaN, has another number of classes than
            `cfg.class_probabilities`, or takes no augmentation labels where `cfg.augment` is on.
    """

    def __init__(self, teacher: nn.Module, cfg: DistillConfig | None = None) -> None:
        self.cfg = cfg = cfg or DistillConfig()
        check_teacher(teacher)
        if next(teacher.parameters(), None) is None:
            raise InputError(
                expected="a teacher with weights to start from",
                got="a module without parameters",
                fix="pass the network itself",
            )
        shares = cfg.class_probabilities
        if shares is not None and len(shares) != teacher.label_dim:
            raise InputError(
                expected=f"class_probabilities for the teacher's {teacher.label_dim} classes",
                got=f"{len(shares)} values",
                fix="leave it out for uniform classes",
            )
        if cfg.augment:
            _check_augmentation(teacher)
        self.networks = Networks.from_teacher(teacher, cfg.dropout)
        self._average = copy.deepcopy(self.networks.generator).eval().requires_grad_(False)
        self._fake_optimizer = AdamEMA(
            self.networks.fake.parameters(),
            cfg.lr,
            (cfg.beta1, cfg.beta2),
            cfg.eps,
            nonfinite=cfg.nonfinite,
        )
        self._generator_optimizer = AdamEMA(
            self.networks.generator.parameters(),
            cfg.generator_rate,
            (cfg.generator_beta1, cfg.beta2),
            cfg.eps,
            ema=list(self._average.parameters()),
            nonfinite=cfg.nonfinite,
        )
        self._device = device_of(teacher)
        if self._device.type == "cpu":
            keep_freed_memory()
        self._seed = torch.full((), cfg.seed, dtype=torch.int64, device=self._device)
        lanes = 1
        if can_rebuild(teacher):  # other networks may hold state that two lanes must not share
            lanes = lane_count(self._device, max(cfg.batch // LEAST_PER_LANE, 1))
        self._images_per_round = cfg.batch_device or -(-cfg.batch // lanes)
        self.n_img = 0

    def step(self) -> dict[str, Tensor]:
        """One iteration: fake score, then generator, then its average.

        Returns:
            0-d tensors on the device; reading one waits for it. `fake_loss` and
            `generator_loss` are means per sample, `skipped` counts the updates left out so far
            for a non-finite gradient.
        """
        with full_float32(self._device):
            return self._step()

    def _step(self) -> dict[str, Tensor]:
        cfg = self.cfg
        factor = cfg.lr_factor(self.n_img)
        self._fake_optimizer.param_groups[0]["lr"] = cfg.lr * factor
        self._generator_optimizer.param_groups[0]["lr"] = cfg.generator_rate * factor
        fake_loss = fake_score_update(
            self.networks, self._fake_optimizer, self._draws("FAKE"), cfg, cfg.batch
        )
        generator_loss = generator_update(
            self.networks,
            self._generator_optimizer,
            self._draws("GENERATOR"),
            cfg,
            cfg.batch,
            ema_beta(
                cfg.batch,
                self.n_img,
                halflife=cfg.ema_halflife_kimg * 1000,
                rampup=cfg.ema_rampup,
            ),
        )
        self.n_img += cfg.batch
        return {
            "fake_loss": fake_loss,
            "generator_loss": generator_loss,
            "skipped": self._fake_optimizer.skipped + self._generator_optimizer.skipped,
        }

    def _draws(self, update: str) -> list[KeyedDraws]:
        index = torch.arange(self.n_img, self.n_img + self.cfg.batch, device=self._device)
        return [
            KeyedDraws(update, self._seed, part) for part in index.split(self._images_per_round)
        ]

    @property
    def generator(self) -> Generator:
        """The averaged generator as it stands; it goes on changing with every step."""
        return Generator(self._average, self.cfg.sigma_init)

    def sample(self, n: int, seed: int = 0, labels: Tensor | int | None = None) -> Tensor:
        """Draw n images from the averaged generator, see `Generator.sample`."""
        return self.generator.sample(n, seed, labels)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, except teacher and config."""
        return {
            "n_img": self.n_img,
            "images_per_round": self._images_per_round,
            "fake": self.networks.fake.state_dict(),
            "generator": self.networks.generator.state_dict(),
            "average": self._average.state_dict(),
            "fake_optimizer": self._fake_optimizer.state_dict(),
            "generator_optimizer": self._generator_optimizer.state_dict(),
            "fake_skipped": self._fake_optimizer.skipped,
            "generator_skipped": self._generator_optimizer.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        The next step is the same to the bit on a CPU with as many threads, for networks of
        `sidfast.networks`.
        """
        self.networks.fake.load_state_dict(state["fake"])
        self.networks.generator.load_state_dict(state["generator"])
        self._average.load_state_dict(state["average"])
        self._fake_optimizer.load_state_dict(copy.deepcopy(state["fake_optimizer"]))
        self._generator_optimizer.load_state_dict(copy.deepcopy(state["generator_optimizer"]))
        self._fake_optimizer.skipped.copy_(state["fake_skipped"])
        self._generator_optimizer.skipped.copy_(state["generator_skipped"])
        self.n_img = int(state["n_img"])
        self._images_per_round = int(state["images_per_round"])


def _check_augmentation(teacher: nn.Module) -> None:
    denoiser, device = cast(Denoiser, teacher), device_of(teacher)
    side = denoiser.img_resolution
    x = torch.zeros(1, denoiser.img_channels, side, side, device=device)
    classes = torch.zeros(1, denoiser.label_dim, device=device) if denoiser.label_dim else None
    labels = torch.zeros(1, LABEL_DIM, device=device)
    try:
        with torch.no_grad():
            denoiser(x, torch.ones(1, device=device), classes, labels)
    except Exception as error:
        raise InputError(
            expected=f"a teacher that takes {LABEL_DIM} augmentation labels, as augment asks",
            got=" ".join(str(error).split()),
            fix="set augment to 0",
        ) from error
