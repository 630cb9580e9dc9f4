"""SiDA's terms against their definition in float64 and against the authors' numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from sidfast.base.errors import InputError
from sidfast.losses import dsm_loss, sida_discriminator_loss, sida_generator_loss
from sidfast.testing.goldens import golden
from sidfast.testing.tensors import relative_error


def batch(
    dtype: torch.dtype = torch.float32, logits: tuple[int, ...] = (3, 1, 4, 4)
) -> list[Tensor]:
    """Images, teacher, fake score and logits, some beyond the clamp; all need gradients."""
    generator = torch.Generator().manual_seed(7)
    noise = [torch.randn((3, 2, 8, 8), generator=generator) for _ in range(3)]
    teacher = noise[0] + 0.3 * noise[1]
    tensors = [noise[0], teacher, teacher + 0.05 * noise[2]]
    tensors.append(8 * torch.randn(logits, generator=generator))
    return [each.to(dtype).requires_grad_() for each in tensors]


def sample_mean(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1).mean(1)


def cross_entropy(logits: Tensor, label: float) -> Tensor:
    target = torch.full_like(logits, label)
    return binary_cross_entropy_with_logits(logits, target)


def generator_loss(
    x: Tensor, teacher: Tensor, fake: Tensor, logits: Tensor, alpha: float, sid: float, gan: float
) -> Tensor:
    error, difference = teacher - x, teacher - fake
    w = sample_mean(error.detach().abs()).clamp(min=1e-5)
    score = (difference * (error - alpha * difference)).flatten(1).sum(1) / w
    passing = cross_entropy(logits.clamp(-10, 10), 1.0) * x[0].numel() / w
    return sid * score + gan * passing


@pytest.mark.parametrize("logits", [(3, 1, 4, 4), (3, 5), (3,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_generator_loss_is_the_definition(dtype: torch.dtype, logits: tuple[int, ...]) -> None:
    tensors = batch(dtype, logits)
    wide = [each.detach().double().requires_grad_() for each in tensors]
    loss = sida_generator_loss(*tensors, 1.2, sid_weight=0.7, gan_weight=3e-3, grad_scale=0.5)
    expected = generator_loss(*wide, 1.2, 0.7, 3e-3)
    grads = torch.autograd.grad(loss.sum() * 0.5, tensors)
    expected_grads = torch.autograd.grad(expected.sum() * 0.5, wide)
    rounding = torch.finfo(dtype).eps / 2 if dtype == torch.bfloat16 else 0
    assert loss.shape == (3,)
    assert relative_error(loss.detach(), expected.detach()) <= 3e-7
    for grad, exact in zip(grads, expected_grads, strict=True):
        assert grad.dtype == dtype
        assert relative_error(grad, exact) <= 3e-7 + rounding


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_sick_sample_adds_nothing(which: int, value: float) -> None:
    tensors = [each.detach() for each in batch()]
    tensors[which].flatten(1)[1, 3] = value
    operands = [each.requires_grad_() for each in tensors]
    loss = sida_generator_loss(*operands)
    grads = torch.autograd.grad(loss.sum(), operands)
    healthy = [each.detach()[[0, 2]].requires_grad_() for each in operands]
    alone = sida_generator_loss(*healthy)
    for each, expected in zip(
        (loss, *grads), (alone, *torch.autograd.grad(alone.sum(), healthy)), strict=True
    ):
        assert each[1].eq(0).all() and relative_error(each[[0, 2]], expected) <= 3e-7


def test_generator_loss_gives_the_authors_numbers() -> None:
    data = golden("sida_losses.npz")
    keys = ("y", "y_real", "y_fake", "y_D")
    operands = [torch.from_numpy(data[key]).requires_grad_() for key in keys]
    scalar = sida_generator_loss(*operands).sum() * 100 / 4
    assert scalar.item() == pytest.approx(data["g_total_f32"].item(), rel=1e-6)
    for key, grad in zip(keys, torch.autograd.grad(scalar, operands), strict=True):
        assert relative_error(grad, torch.from_numpy(data[f"dg_{key}"])) <= 1e-6


def test_discriminator_loss_gives_the_authors_numbers() -> None:
    data = golden("sida_losses.npz")
    images, denoised, sigma, *logits = (
        torch.from_numpy(data[key])
        for key in ("y", "y_fake", "sigma_f32", "logit_fake", "logit_real")
    )
    fake_score, weight = dsm_loss(images, denoised, sigma, return_weight=True)
    operands = [each.requires_grad_() for each in logits]
    loss = sida_discriminator_loss(*operands, weight)
    grads = torch.autograd.grad(loss.sum() / 4, operands)
    assert relative_error(loss.detach(), torch.from_numpy(data["d_loss_D_f32"]).flatten()) <= 1e-6
    assert (fake_score.sum() / 4).item() == pytest.approx(
        data["d_scalar_fake_f32"].item(), rel=1e-6
    )
    for key, grad in zip(("logit_fake", "logit_real"), grads, strict=True):
        assert relative_error(grad, torch.from_numpy(data[f"dd_{key}"])) <= 1e-6


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (3, 5), (3,)], ids=str)
def test_discriminator_loss_is_the_definition(shape: tuple[int, ...]) -> None:
    fake, real = (10 * torch.randn(shape, generator=torch.manual_seed(n)) for n in (1, 2))
    weight = torch.tensor([0.3, 4.0, 5.0], requires_grad=True)
    operands = [each.requires_grad_() for each in (fake, real)]
    wide = [each.detach().double().requires_grad_() for each in operands]
    loss = sida_discriminator_loss(*operands, weight)
    terms = cross_entropy(wide[0], 0.0) + cross_entropy(wide[1], 1.0)
    expected = weight.detach().double() * terms / 2
    assert relative_error(loss.detach(), expected.detach()) <= 3e-7
    grads = torch.autograd.grad(loss.sum(), [*operands, weight], allow_unused=True)
    assert grads[2] is None
    for grad, exact in zip(grads, torch.autograd.grad(expected.sum(), wide), strict=False):
        assert relative_error(grad, exact) <= 3e-7


@pytest.mark.parametrize("which", range(3))
def test_a_sick_pair_adds_nothing(which: int) -> None:
    generator = torch.manual_seed(3)
    tensors = [torch.randn(3, 1, 4, 4, generator=generator) for _ in range(2)] + [torch.ones(3)]
    tensors[which].view(3, -1)[1, 0] = torch.nan
    logits = [each.requires_grad_() for each in tensors[:2]]
    loss = sida_discriminator_loss(*logits, tensors[2])
    alone = sida_discriminator_loss(*(each[[0, 2]] for each in logits), tensors[2][[0, 2]])
    grads, expected = (torch.autograd.grad(each.sum(), logits) for each in (loss, alone))
    assert loss[1].eq(0) and relative_error(loss[[0, 2]], alone) <= 3e-7
    for grad, exact in zip(grads, expected, strict=True):
        assert grad[1].eq(0).all() and relative_error(grad, exact) <= 3e-7


def test_nothing_costs_nothing() -> None:
    images, logits = torch.zeros(0, 3, 4, 4), torch.zeros(0, 1, 2, 2, requires_grad=True)
    loss = sida_generator_loss(images, images, images, logits)
    pair = sida_discriminator_loss(logits, logits, torch.zeros(0))
    assert loss.shape == pair.shape == (0,)
    assert torch.autograd.grad(loss.sum() + pair.sum(), logits)[0].shape == logits.shape


def both_losses(x: Tensor, logits: Tensor) -> Tensor:
    teacher = x.sin()
    loss = sida_generator_loss(x, teacher, teacher + 0.1 * x, logits)
    return (loss + sida_discriminator_loss(logits, -logits, loss.detach())).sum()


def test_one_graph_serves_every_batch() -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(both_losses, fullgraph=True, backend=counter)
    for size in (2, 3, 5, 8):
        operands = [torch.randn(size, c, 4, 4, requires_grad=True) for c in (3, 1)]
        losses = [function(*operands) for function in (compiled, both_losses)]
        torch.testing.assert_close(losses[0], losses[1])
        grads = [torch.autograd.grad(loss, operands) for loss in losses]
        for ours, eager in zip(*grads, strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)
    assert counter.frame_count <= 2


X = torch.zeros(2, 3)
LOGITS = torch.zeros(2, 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sida_generator_loss(X, X, X, LOGITS, sid_weight=0.0), "sid_weight"),
        (lambda: sida_generator_loss(X, X, X, LOGITS, gan_weight=float("nan")), "gan_weight"),
        (lambda: sida_generator_loss(X, X, X, LOGITS[:1]), "logits of one batch size"),
        (lambda: sida_generator_loss(X, X, X, LOGITS.int()), "torch.int32"),
        (lambda: sida_generator_loss(X, X, X, LOGITS.to("meta")), "one device"),
        (lambda: sida_generator_loss(X, X[:1], X, LOGITS), "teacher_x0"),
        (lambda: sida_discriminator_loss(LOGITS, LOGITS, LOGITS), "weight (B,)"),
        (lambda: sida_discriminator_loss(LOGITS[:1], LOGITS, torch.ones(2)), "fake_logits"),
        (lambda: sida_discriminator_loss(LOGITS, LOGITS[0, 0], torch.ones(2)), "real_logits"),
    ],
)
def test_bad_input_is_named(call: Callable[[], Tensor], words: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert words in str(error.value) and "expected" in str(error.value)
