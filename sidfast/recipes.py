"""Settings of whole runs: the digits demo's, and the paper's (arXiv 2404.04057, appendix).

Each function returns a `DistillConfig`; keywords replace single settings:
`recipes.cifar10_uncond(alpha=1.0)`. The paper ran ImageNet, FFHQ and AFHQ with half precision
inside the networks; here every network runs in float32.
"""

from __future__ import annotations

from typing import Any

from sidfast.distillation.config import DistillConfig


def digits(**settings: Any) -> DistillConfig:
    """The demo: the packaged digits teacher, minutes on two CPU cores.

    Our own choice, for speed: rates far above the paper's that fall to zero, the fake score's above
    the generator's so that it keeps up, and an average four times as long against their noise.
    """
    return DistillConfig(
        **{
            "kimg": 100.0,
            "batch": 128,
            "lr": 1e-3,
            "generator_lr": 4e-4,
            "lr_decay": 0.8,
            "ema_rampup": 0.2,
            "evaluations": 12,
            "eval_samples": 4000,
            **settings,
        }
    )


def cifar10_uncond(**settings: Any) -> DistillConfig:
    """CIFAR-10, unconditional; the paper's FID is 1.923 (teacher 1.97)."""
    return DistillConfig(
        **{
            "kimg": 500_000.0,
            "batch": 256,
            "batch_device": 16,
            "dropout": 0.13,
            "augment": 0.12,
            **settings,
        }
    )


def cifar10_cond(**settings: Any) -> DistillConfig:
    """CIFAR-10, class-conditional; the paper's FID is 1.710 (teacher 1.79)."""
    return cifar10_uncond(**{"kimg": 800_000.0, **settings})


def imagenet64(**settings: Any) -> DistillConfig:
    """ImageNet 64x64, class-conditional; the paper's FID is 1.524."""
    return DistillConfig(
        **{
            "kimg": 1_000_000.0,
            "batch": 8192,
            "batch_device": 16,
            "lr": 4e-6,
            "eps": 1e-6,
            "ema_halflife_kimg": 2000.0,
            "dropout": 0.1,
            **settings,
        }
    )


def ffhq64(**settings: Any) -> DistillConfig:
    """FFHQ 64x64; the paper's FID is 1.550."""
    return DistillConfig(
        **{
            "kimg": 500_000.0,
            "batch": 512,
            "batch_device": 32,
            "generator_beta1": 0.9,
            "eps": 1e-6,
            "dropout": 0.05,
            "augment": 0.15,
            **settings,
        }
    )


def afhqv2_64(**settings: Any) -> DistillConfig:
    """AFHQ-v2 64x64; the paper's FID is 1.628."""
    return ffhq64(**{"alpha": 1.0, "lr": 5e-6, "generator_beta1": 0.0, **settings})


RECIPES = {
    "digits": digits,
    "cifar10-uncond": cifar10_uncond,
    "cifar10-cond": cifar10_cond,
    "imagenet64": imagenet64,
    "ffhq64": ffhq64,
    "afhqv2-64": afhqv2_64,
}
