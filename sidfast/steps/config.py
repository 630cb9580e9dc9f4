"""The constants of one iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sidfast.base.errors import InputError


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """What the two updates need to know; the defaults are the paper's (arXiv 2404.04057).

    Attributes:
        alpha: weight of the biased term in L2 - alpha * L1 (paper: 1.0 and 1.2).
        sigma_init: noise level at which the generator is called.
        t_max: end of the generator update's t range, in thousandths.
        sigma_min, sigma_max, rho: the curve on which t becomes a noise level.
        sigma_data: standard deviation of the data, in image units.
        p_mean, p_std: of log sigma in the fake score's update.
        weight_floor: least value of the per-sample weight of the generator loss.
        fake_loss_scale, generator_loss_scale: factors of the two losses before backward.
        augment: probability of EDM's augmentation in the fake score's update; 0 is off.
        class_probabilities: share of each class among the drawn labels; None is uniform.
    """

    alpha: float = 1.2
    sigma_init: float = 2.5
    t_max: float = 800.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    sigma_data: float = 0.5
    p_mean: float = -1.2
    p_std: float = 1.2
    weight_floor: float = 1e-5
    fake_loss_scale: float = 1.0
    generator_loss_scale: float = 100.0
    augment: float = 0.0
    class_probabilities: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, -10, 10, "the paper uses 1.0 and 1.2")
        check_range("t_max", self.t_max, 1, 1000, "the paper uses 800")
        check_range("p_mean", self.p_mean, -100, 100, "the paper uses -1.2")
        check_range("augment", self.augment, 0, 1, "it is a probability; 0 switches it off")
        for name in (
            "sigma_init",
            "sigma_min",
            "sigma_max",
            "rho",
            "sigma_data",
            "p_std",
            "weight_floor",
            "fake_loss_scale",
            "generator_loss_scale",
        ):
            check_range(name, getattr(self, name), 1e-12, 1e12, "leave it out for the default")
        if self.sigma_min >= self.sigma_max:
            raise InputError(
                expected="sigma_min < sigma_max",
                got=f"{self.sigma_min} and {self.sigma_max}",
                fix="the defaults are 0.002 and 80",
            )
        shares = self.class_probabilities
        if shares is not None and not (
            all(share >= 0 for share in shares) and abs(sum(shares) - 1) <= 1e-6
        ):
            raise InputError(
                expected="class_probabilities >= 0 that add up to 1",
                got=f"{len(shares)} values, least {min(shares, default=0)}, sum {sum(shares)}",
                fix="divide the class counts of the data by their sum",
            )


def check_range(name: str, value: float, low: float, high: float, fix: str) -> None:
    """Raise `InputError` unless `value` is a number in [low, high]."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise InputError(
            expected=f"{name} to be a number from {_short(low)} to {_short(high)}",
            got=repr(value),
            fix=fix,
        )


def _short(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
