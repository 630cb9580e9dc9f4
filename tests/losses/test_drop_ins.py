"""The losses as other libraries' authors call them, against the libraries' formulas in float64."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from sidfast.base.errors import InputError
from sidfast.losses import sid_loss, variational_score_distillation_loss, vsd_loss
from sidfast.ops.score_losses import contract
from sidfast.testing.tensors import relative_error

VIDEOS = (2, 4, 5, 6, 7)
SHAPES = (VIDEOS, (3, 3, 16, 16), (4, 10))
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def batch(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Images that need a gradient, a teacher near them and a fake score near the teacher."""
    generator = torch.Generator().manual_seed(sum(shape))
    noise = [torch.randn(shape, generator=generator) for _ in range(3)]
    teacher = noise[0] + 0.3 * noise[1]
    images, fake = noise[0], teacher + 0.05 * noise[2]
    return [images.to(dtype).requires_grad_(), teacher.to(dtype), fake.to(dtype)]


def spread(value: Tensor, x: Tensor) -> Tensor:
    return value.double().reshape(-1, *[1] * (x.dim() - 1))


def distance(x: Tensor, teacher: Tensor) -> Tensor:
    """mean |x - T| of each sample, in float64, to broadcast."""
    return spread((x - teacher).detach().abs().flatten(1).mean(1), x)


def towards(x: Tensor, gradient: Tensor) -> Tensor:
    """Half the squared distance of x to a target that makes `gradient` its derivative."""
    return (x - (x - gradient).detach()).square() / 2


def defined(
    formula: Callable[[Tensor, Tensor, Tensor], Tensor], tensors: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """A formula's value in float64, and the images' gradient of its sum."""
    x, teacher, fake = (each.detach().double() for each in tensors)
    value = formula(x.requires_grad_(), teacher, fake)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def assert_near(value: Tensor, images: Tensor, expected: tuple[Tensor, Tensor]) -> None:
    (grad,) = torch.autograd.grad(value.sum(), images)
    rounding = torch.finfo(images.dtype).eps if images.dtype.itemsize == 2 else 0
    assert value.shape == expected[0].shape
    assert relative_error(value.detach(), expected[0]) <= 2e-7
    assert relative_error(grad, expected[1]) <= 3e-7 + rounding


def fastgen(scale: Tensor | None = None) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def formula(x: Tensor, teacher: Tensor, fake: Tensor) -> Tensor:
        weight = 1 / (distance(x, teacher) + 1e-6)
        if scale is not None:
            weight = weight * spread(scale, x)
        return towards(x, (fake - teacher) * weight).mean()

    return formula


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fastgen_and_modelopt(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = batch(shape, dtype)
    loss = variational_score_distillation_loss(*tensors)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_near(loss, tensors[0], defined(fastgen(), tensors))


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("trailing", (0, 4))
def test_additional_scale(dtype: torch.dtype, trailing: int) -> None:
    tensors = batch(VIDEOS)
    scale = torch.tensor([0.25, 3.0], dtype=dtype, requires_grad=True)
    given = scale.reshape(2, *[1] * trailing)
    loss = variational_score_distillation_loss(*tensors, additional_scale=given)
    assert_near(loss, tensors[0], defined(fastgen(scale.detach()), tensors))


def test_signature_is_the_one_called() -> None:
    parameters = inspect.signature(variational_score_distillation_loss).parameters
    assert list(parameters) == ["gen_data", "teacher_x0", "fake_score_x0", "additional_scale"]
    assert parameters["additional_scale"].default is None


def test_networks_get_no_gradient() -> None:
    images, *networks = batch(VIDEOS)
    for each in networks:
        each.requires_grad_()
    loss = variational_score_distillation_loss(images, *networks)
    loss.backward()
    assert images.grad is not None and all(each.grad is None for each in networks)
    assert not variational_score_distillation_loss(images.detach(), *networks).requires_grad


@pytest.mark.parametrize("which", range(3))
def test_a_sick_sample_adds_nothing(which: int) -> None:
    images, teacher, fake = (each.detach() for each in batch(VIDEOS))
    alone, _ = defined(fastgen(), [each[1:] for each in (images, teacher, fake)])
    (images, teacher, fake)[which][0, 0, 0, 0, 0] = torch.nan
    loss = variational_score_distillation_loss(images.requires_grad_(), teacher, fake)
    (grad,) = torch.autograd.grad(loss, images)
    assert relative_error(loss.detach(), alone / 2) <= 2e-7
    assert grad[0].eq(0).all() and grad[1].ne(0).any()


def test_a_loss_scale_saves_gradients_of_half_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, 4, 400, 400), generator=generator)
    teacher = (images + torch.randn(images.shape, generator=generator)).half()
    fake = (teacher + 0.01 * torch.randn(images.shape, generator=generator)).half()
    tensors = [images.half().requires_grad_(), teacher, fake]
    loss = variational_score_distillation_loss(*tensors) * 2.0**16
    _, expected = defined(fastgen(), tensors)
    (grad,) = torch.autograd.grad(loss, tensors[0])
    assert relative_error(grad, expected * 2**16) <= 1e-3


def test_nothing_costs_nothing() -> None:
    images = torch.zeros(0, 3, 8, 8, requires_grad=True)
    loss = variational_score_distillation_loss(images, images.detach(), images.detach())
    assert loss.item() == 0 and torch.autograd.grad(loss, images)[0].shape == images.shape


def loss_of_images(x: Tensor) -> Tensor:
    teacher = x.sin()
    return variational_score_distillation_loss(x.cos(), teacher, 1.1 * teacher)


def test_one_graph_serves_every_batch() -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss_of_images, fullgraph=True, backend=counter)
    for size in (2, 3, 5, 8):
        x = torch.randn(size, 3, 4, 4, requires_grad=True)
        losses = [function(x) for function in (compiled, loss_of_images)]
        torch.testing.assert_close(losses[0], losses[1])
        grads = [torch.autograd.grad(loss, x)[0] for loss in losses]
        assert relative_error(grads[0], grads[1]) <= 1e-6
    assert counter.frame_count <= 2


def test_gradients_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In eager code on a CPU the gradient that forward made is the one that arrives."""
    scaling = Mock(wraps=contract.spread)
    monkeypatch.setattr(contract, "spread", scaling)
    images, teacher, fake = batch((3, 3, 7, 5))
    variational_score_distillation_loss(images, teacher, fake).backward()
    scaling.assert_not_called()
    (2 * variational_score_distillation_loss(images, teacher, fake)).backward()
    scaling.assert_called()


def test_bad_scale_is_named() -> None:
    with pytest.raises(InputError, match=r"scale of shape \(2,\)"):
        variational_score_distillation_loss(*batch(VIDEOS), torch.ones(3))


def dmd2(x: Tensor, teacher: Tensor, fake: Tensor) -> Tensor:
    real, generated = x - teacher, x - fake
    gradient = torch.nan_to_num((real - generated) / distance(x, teacher))
    return towards(x, gradient).mean()


def masked(x: Tensor, teacher: Tensor, fake: Tensor) -> Tensor:
    return towards(x, (fake - teacher) / distance(x, teacher))[mask(x)].mean()


def mask(x: Tensor) -> Tensor:
    """All frames but the first."""
    return torch.ones_like(x, dtype=torch.bool).index_fill(1, torch.tensor([0]), False)


def self_forcing_sid(x: Tensor, teacher: Tensor, fake: Tensor) -> Tensor:
    difference, error = teacher.double() - fake, teacher - x
    return (difference * (error - 0.8 * difference) / distance(x, teacher)).mean()


def rcm(x: Tensor, teacher: Tensor, fake: Tensor) -> Tensor:
    gradient = (fake - teacher) / distance(x, teacher).clip(min=1e-5)
    return 2 * towards(x, gradient).flatten(1).sum(1)


UNGUARDED = {"floor": 1e-12, "eps": 0.0}

RECIPES = {
    "DMD2": (dmd2, lambda x, t, f: vsd_loss(x, t, f, **UNGUARDED).sum() / x.numel()),
    "Self-Forcing, gradient_mask": (
        masked,
        lambda x, t, f: (
            vsd_loss(x, t, torch.where(mask(x), f, t), **UNGUARDED).sum() / mask(x).sum()
        ),
    ),
    "Self-Forcing, SiD": (
        self_forcing_sid,
        lambda x, t, f: sid_loss(x, t, f, 0.8, 1e-12).sum() / x.numel(),
    ),
    "rCM": (rcm, lambda x, t, f: 2 * vsd_loss(x, t, f, floor=1e-5, eps=0.0)),
}


@pytest.mark.parametrize("library", RECIPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_recipe(library: str, shape: tuple[int, ...]) -> None:
    formula, call = RECIPES[library]
    tensors = batch(shape)
    assert_near(call(*tensors), tensors[0], defined(formula, tensors))


def test_guards_act_where_the_teacher_is_exact() -> None:
    """x = T, where an unguarded weight divides by zero: floor or eps is then all of it."""
    images, _, fake = batch(VIDEOS)
    teacher = images.detach().clone()
    fake = teacher + 1e-4 * (fake - teacher)
    tensors = [images, teacher, fake]
    loss = variational_score_distillation_loss(*tensors)
    assert_near(loss, images, defined(fastgen(), tensors))
    assert_near(RECIPES["rCM"][1](*tensors), images, defined(rcm, tensors))
