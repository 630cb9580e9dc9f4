"""EDM's augmentation: replay of the published code, and what each transform does to an image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sidfast.base.errors import InputError
from sidfast.ops.random import Key
from sidfast.steps.augment import NORMALS, UNIFORMS, AugmentDraws, AugmentPipe, resample
from sidfast.testing.goldens import golden


def draws(batch: int = 1, **values: float) -> AugmentDraws:
    """Draws that do nothing but what `values` names; a named gate of 0 opens it."""
    u = [values.get(k, 0.999 if k.endswith("gate") else 0.0) for k in UNIFORMS]
    n = [values.get(k, 0.0) for k in NORMALS]
    return AugmentDraws(
        torch.tensor([u]).double().expand(batch, -1), torch.tensor([n]).double().expand(batch, -1)
    )


def blob(x: Tensor, y: Tensor) -> Tensor:
    """A smooth image without symmetry, of centred pixel coordinates."""
    return torch.exp(-((x - 2) ** 2 + x * y / 2 + 2 * (y + 1) ** 2) / 40)


def centred(size: int) -> tuple[Tensor, Tensor]:
    line = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return line[None, :], line[:, None]


def test_replays_the_published_code() -> None:
    data = golden("augment_p0.12.npz")
    images = torch.from_numpy(data["x"])
    n = len(images)
    torch.manual_seed(int(data["seed"]))
    xflip, xflip_gate = torch.randint(2, (n,)) / 2, torch.rand(n)
    yflip, yflip_gate = torch.randint(2, (n,)) / 2, torch.rand(n)
    scale, scale_gate = torch.randn(n), torch.rand(n)
    rotate, rotate_gate = torch.rand(n), torch.rand(n)
    aniso, axis, aniso_gate, axis_gate = torch.randn(n), *torch.rand(3, n)
    (shift_x, shift_y), shift_gate = torch.randn(2, n), torch.rand(n)
    uniform = [xflip, xflip_gate, yflip, yflip_gate, scale_gate, rotate, rotate_gate]
    uniform += [axis, aniso_gate, axis_gate, shift_gate]
    recorded = AugmentDraws(
        torch.stack(uniform, 1), torch.stack([scale, aniso, shift_x, shift_y], 1)
    )
    out, labels = AugmentPipe(p=0.12).apply(images, recorded)
    np.testing.assert_allclose(labels, data["labels_f32"], atol=1e-6)
    # Two float32 computations of sampling positions on a grid of 188 fine pixels.
    np.testing.assert_allclose(out, data["y_f32"], atol=3e-5)


def test_probability_zero_does_nothing() -> None:
    images = torch.randn(3, 2, 8, 8)
    key = Key(0, torch.arange(3), 0)
    out, labels = AugmentPipe(p=0.0)(images, key)
    assert torch.equal(out, images) and torch.equal(labels, torch.zeros(3, 9))


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2, 3, 16, 16), (1, 2, 5, 12)])
def test_no_transform_keeps_the_image(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape, dtype=torch.float64)
    out, labels = AugmentPipe(p=0.5).apply(images, draws(shape[0]))
    torch.testing.assert_close(out, images, rtol=0, atol=1e-10)
    assert not labels.any()


@pytest.mark.parametrize("axis", ["x", "y"])
def test_flips(axis: str) -> None:
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    only_flips = AugmentPipe(p=0.5, scale=0, rotate_frac=0, aniso=0, translate_frac=0)
    flip = draws(2, **{f"{axis}flip": 0.5, f"{axis}flip_gate": 0.0})
    out, labels = only_flips.apply(images, flip)
    assert torch.equal(out, images.flip(3 if axis == "x" else 2))
    assert labels[0].tolist() == [axis == "x", axis == "y"] + [0] * 7


def test_whole_pixel_shift() -> None:
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    shift = draws(2, translate_gate=0.0, translate_x=2.0, translate_y=-1.0)
    out, labels = AugmentPipe(p=0.5).apply(images, shift)
    # Two pixels to the right and one up; a reflection fills the gap.
    torch.testing.assert_close(out[..., :7, 2:], images[..., 1:, :6], rtol=0, atol=1e-10)
    torch.testing.assert_close(out[..., :7, 1], images[..., 1:, 1], rtol=0, atol=1e-10)
    torch.testing.assert_close(out[..., 7, 2:], images[..., 6, :6], rtol=0, atol=1e-10)
    assert labels[0].tolist() == [0] * 7 + [2, -1]


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_quarter_turns(quarter_turns: int) -> None:
    image = blob(*centred(32))
    half_turns = quarter_turns / 2 - (2 if quarter_turns > 2 else 0)
    turn = draws(rotate_gate=0.0, rotate=(half_turns + 1) / 2)
    out, labels = AugmentPipe(p=0.5).apply(image[None, None], turn)
    # The wavelet's centre of mass lies 0.2 pixels off its middle, which a turn makes visible.
    torch.testing.assert_close(out[0, 0], torch.rot90(image, quarter_turns), rtol=0, atol=0.03)
    assert (image - torch.rot90(image, quarter_turns)).abs().max() > 0.3
    angle = math.pi * half_turns
    np.testing.assert_allclose(labels[0, 3:5], [math.cos(angle) - 1, math.sin(angle)], atol=1e-6)


@pytest.mark.parametrize(
    ("values", "source", "label"),
    [
        (
            {"scale_gate": 0.0, "scale": 1.5},
            lambda x, y: (x / 2**0.3, y / 2**0.3),
            [0, 0, 1.5, 0, 0, 0, 0, 0, 0],
        ),
        (
            {"aniso_gate": 0.0, "aniso": 1.0},
            lambda x, y: (x / 2**0.2, y * 2**0.2),
            [0, 0, 0, 0, 0, 1, 0, 0, 0],
        ),
        (
            {"aniso_gate": 0.0, "aniso": 1.0, "aniso_axis_gate": 0.0, "aniso_axis": 0.75},
            lambda x, y: (x * 2**0.2, y / 2**0.2),
            [0, 0, 0, 0, 0, 0, 1, 0, 0],
        ),
        (
            {"translate_gate": 0.0, "translate_x": 0.4, "translate_y": -0.7},
            lambda x, y: (x - 1.6, y + 2.8),
            [0, 0, 0, 0, 0, 0, 0, 0.4, -0.7],
        ),
        (
            {"rotate_gate": 0.0, "rotate": 0.6, "translate_gate": 0.0, "translate_x": 0.5},
            lambda x, y: (
                (x - 2) * math.cos(0.2 * math.pi) - y * math.sin(0.2 * math.pi),
                (x - 2) * math.sin(0.2 * math.pi) + y * math.cos(0.2 * math.pi),
            ),
            [0, 0, 0, math.cos(0.2 * math.pi) - 1, math.sin(0.2 * math.pi), 0, 0, 0.5, 0],
        ),
    ],
)
def test_each_transform_moves_a_smooth_image(
    values: dict[str, float], source: Any, label: list[float]
) -> None:
    x, y = centred(32)
    out, labels = AugmentPipe(p=0.5).apply(blob(x, y)[None, None], draws(**values))
    inside = slice(6, -6)
    error = (out[0, 0] - blob(*source(x, y)))[inside, inside]
    assert error.abs().max() < 1e-2
    np.testing.assert_allclose(labels[0], label, atol=1e-6)


def test_batch_split_and_key() -> None:
    images = torch.randn(6, 1, 8, 8)
    index = torch.tensor([3, 1, 2**33, 8, 0, 5])
    pipe = AugmentPipe(p=0.8)
    whole = pipe(images, Key(4, index, 77))
    parts = [pipe(images[rows], Key(4, index[rows], 77)) for rows in (slice(2), slice(2, 6))]
    for together, split in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(together, torch.cat(split), rtol=0, atol=1e-5)
    assert not torch.allclose(whole[1], pipe(images, Key(5, index, 77))[1])
    assert not torch.allclose(whole[1], pipe(images, Key(4, index, 79))[1])


def test_frequencies_and_spread_of_the_labels() -> None:
    n = 20_000
    _, labels = AugmentPipe(p=0.12)(torch.zeros(n, 1, 1, 1), Key(1, torch.arange(n), 0))
    xflip, yflip, scale, cosine, sine, aniso_x, aniso_y, shift_x, shift_y = labels.T
    assert xflip.mean().item() == pytest.approx(0.5, abs=0.015)
    assert yflip.mean().item() == pytest.approx(0.06, abs=0.008)
    for value in (scale, sine, aniso_x, shift_x, shift_y):
        assert (value != 0).float().mean().item() == pytest.approx(0.12, abs=0.01)
    assert (aniso_y != 0).float().mean().item() == pytest.approx(0.06, abs=0.008)
    assert scale[scale != 0].std().item() == pytest.approx(1, abs=0.06)
    torch.testing.assert_close((cosine + 1) ** 2 + sine**2, torch.ones(n))
    both = torch.stack([aniso_x, aniso_y])[:, aniso_x != 0]
    assert both.norm(dim=0).square().mean().item() == pytest.approx(1, abs=0.1)


def test_differentiable() -> None:
    images = torch.randn(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    angle = torch.tensor([0.3], dtype=torch.float64)
    linear = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(1, 2, 2)
    shift = torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    torch.autograd.gradcheck(lambda x: resample(x, linear, shift), (images,), fast_mode=True)


def test_misuse_is_explained() -> None:
    with pytest.raises(InputError, match=r"p in \[0, 1\], got 1.5"):
        AugmentPipe(p=1.5)
    with pytest.raises(InputError, match="scale >= 0"):
        AugmentPipe(p=0.1, scale=-1)
    key = Key(0, torch.arange(3), 0)
    with pytest.raises(InputError, match=r"images \(B, C, H, W\) with B = 3"):
        AugmentPipe(p=0.1)(torch.zeros(2, 1, 8, 8), key)
