"""What `check_teacher` refuses, and that each refusal says what to do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.networks import DhariwalUNet, EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond
from sidfast.teachers import check_teacher


class Identity(nn.Module):
    img_channels, img_resolution, label_dim = 3, 8, 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor, sigma: Tensor, *_: object, key: object = None) -> Tensor:
        return x


@pytest.mark.parametrize("cls", [EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond])
@pytest.mark.parametrize("label_dim", [0, 4])
def test_networks_of_the_house_pass(cls: type, label_dim: int) -> None:
    unet = {"model_channels": 32, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
    check_teacher(cls(img_resolution=8, img_channels=3, label_dim=label_dim, **unet))


def test_a_bare_network_has_no_denoiser_attributes() -> None:
    unet = DhariwalUNet(8, 3, 3, model_channels=32, channel_mult=[1], num_blocks=1)
    with pytest.raises(InputError, match="integer attribute img_channels, got none"):
        check_teacher(unet)


def test_a_function_is_no_teacher() -> None:
    with pytest.raises(InputError, match=r"torch\.nn\.Module, got function"):
        check_teacher(lambda x, sigma: x)


@pytest.mark.parametrize("name", ["img_channels", "img_resolution", "label_dim"])
def test_every_attribute_is_needed(name: str) -> None:
    teacher = Identity()
    setattr(teacher, name, None)
    with pytest.raises(InputError, match=f"integer attribute {name}"):
        check_teacher(teacher)


def test_the_first_nan_weight_is_named() -> None:
    teacher = Identity()
    teacher.weight.data[1] = float("nan")
    with pytest.raises(InputError, match="NaN or infinity in weight"):
        check_teacher(teacher)


class WrongShape(Identity):
    def forward(self, x: Tensor, sigma: Tensor, *_: object, key: object = None) -> Tensor:
        return torch.cat([x, x], dim=1)


class Tuple(Identity):
    def forward(self, x: Tensor, sigma: Tensor, *_: object, key: object = None) -> Tensor:
        return (x,)  # type: ignore[return-value]


class Overflow(Identity):
    def forward(self, x: Tensor, sigma: Tensor, *_: object, key: object = None) -> Tensor:
        return x / 0


class Noise(Identity):
    def forward(self, x: Tensor, sigma: Tensor, *_: object, key: object = None) -> Tensor:
        return torch.cos(37 * x)


class Raises(Identity):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:  # type: ignore[override]
        return x


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (WrongShape(), r"shape \(2, 3, 8, 8\), got \(2, 6, 8, 8\)"),
        (Tuple(), "got tuple"),
        (Overflow(), "finite outputs"),
        (Noise(), "predicts the clean image"),
        (Raises(), "got TypeError"),
    ],
)
def test_wrong_outputs(teacher: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_teacher(teacher)
    assert "\n" not in str(caught.value)


def test_attributes_that_do_not_fit_the_network() -> None:
    net = EDMPrecond(8, 3, model_channels=32, channel_mult=[1], num_blocks=1, attn_resolutions=[])
    net.img_channels = 1
    with pytest.raises(InputError, match="check img_channels, img_resolution and label_dim"):
        check_teacher(net)
