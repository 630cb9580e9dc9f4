"""The bundled teachers, and files by name and path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sidfast
from sidfast.base.errors import InputError
from sidfast.data import digits as digit_images
from sidfast.diffusion import heun_sample
from sidfast.evaluate import Quality, pixel_frechet, pixel_stats
from sidfast.networks import EDMPrecond
from sidfast.networks.files import save_network
from sidfast.teachers import digits, digits_record, load

WEIGHTS = Path(sidfast.__file__).parent / "teachers" / "weights"


def onehot(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, 10).float()


@pytest.mark.parametrize("conditional", [False, True])
def test_digits_are_frozen_and_in_eval_mode(conditional: bool) -> None:
    teacher = digits(conditional)
    assert isinstance(teacher, EDMPrecond) and not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert (teacher.img_channels, teacher.img_resolution) == (1, 8)
    assert teacher.label_dim == (10 if conditional else 0)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
def test_digits_denoise_images_never_seen(conditional: bool, sigma: float) -> None:
    images, labels = digit_images("heldout")
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    teacher = digits(conditional)
    with torch.no_grad():
        denoised = teacher(
            images + sigma * noise,
            torch.full((len(images),), sigma),
            onehot(labels) if conditional else None,
        )
    error = (denoised - images).square().mean().item()
    best_linear = sigma**2 * 0.5 / (sigma**2 + 0.5)  # Wiener filter for pixels of variance 0.5
    assert error < 0.6 * best_linear


def test_labels_matter() -> None:
    images, labels = digit_images("heldout")
    noisy = images + 2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    teacher, sigma = digits(conditional=True), torch.full((len(images),), 2.0)
    right, wrong = (
        (teacher(noisy, sigma, onehot(each)) - images).square().mean().item()
        for each in (labels, (labels + 1) % 10)
    )
    assert right < 0.8 * wrong


def test_digits_sample_digits() -> None:
    latents = torch.randn(500, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    samples = heun_sample(digits(), latents, num_steps=10).clamp(-1, 1)
    assert pixel_frechet(samples, pixel_stats(digit_images("train")[0])) < 1.0


@pytest.mark.parametrize("conditional", [False, True])
def test_weights_are_small_and_say_how_they_were_made(conditional: bool) -> None:
    name = f"digits_{'cond' if conditional else 'uncond'}.safetensors"
    assert (WEIGHTS / name).stat().st_size < 3e6
    record = digits_record(conditional)
    assert record["command"].startswith("python examples/train_digits_teacher.py")
    assert record["parameters"] == sum(p.numel() for p in digits(conditional).parameters())
    quality = Quality.from_dict(record["quality"])
    assert quality.images == 10_000 and not quality.neighbours.memorised


def test_load_a_file_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = EDMPrecond(8, 1, model_channels=8, channel_mult=[1], num_blocks=1).eval()
    save_network(net, tmp_path / "own.safetensors")
    teacher = load(tmp_path / "own.safetensors")
    x, sigma = torch.randn(2, 1, 8, 8), torch.ones(2)
    assert torch.equal(teacher(x, sigma), net(x, sigma))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert sidfast.load_teacher is load


def test_damaged_file(tmp_path: Path) -> None:
    data = (WEIGHTS / "digits_uncond.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="intact network file"):
        load(tmp_path / "half.safetensors")


def test_unknown_name() -> None:
    with pytest.raises(InputError, match=r"one of digits, digits-cond or a \.safetensors file"):
        load("cifar10")
