"""Variational score distillation against the published form of its loss, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sidfast.base.batch import spread
from sidfast.base.errors import BackendError, InputError
from sidfast.ops import score_losses, vsd_loss
from sidfast.ops.score_losses import reference
from sidfast.testing.backends import skip_unless_served
from sidfast.testing.losses import assert_near, batch, exact
from sidfast.testing.tensors import DTYPES, LAYOUTS, SHAPES, poisoned_memory

ROOM = score_losses
OPS = ("vsd_loss", "vsd_loss_grad")
every_isa = pytest.mark.usefixtures("every_isa")

FLOOR, EPS = 0.01, 1e-5
VIDEO = (2, 3, 4, 6, 5)


def scales(size: int, device: str) -> Tensor:
    return torch.linspace(0.5, 30, size).to(device)


@every_isa
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", (*SHAPES, VIDEO), ids=str)
def test_vsd_loss_is_the_definition(
    device: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    for layout in LAYOUTS:
        for scale in (None, scales(shape[0], device)):
            check_vsd_loss(batch(shape, device, dtype, layout), backend, scale)


def check_vsd_loss(operands: list[Tensor], backend: str, scale: Tensor | None) -> None:
    skip_unless_served(ROOM, backend, "vsd_loss", *operands, scale, FLOOR, EPS)
    images = operands[0]
    column = None if scale is None else spread(scale, images)
    options: dict[str, Any] = {"floor": FLOOR, "eps": EPS, "backend": backend}
    with poisoned_memory():
        loss, weight = vsd_loss(*operands, column, return_weight=True, **options)
        with torch.no_grad():
            alone = vsd_loss(*operands, scale, **options)
        (grad,) = torch.autograd.grad(loss.sum(), images)
    expected, expected_weight, (expected_grad, *_) = exact(
        reference.vsd_loss, operands, scale, FLOOR, EPS
    )
    assert loss.shape == weight.shape == images.shape[:1]
    assert loss.dtype == (torch.float64 if images.dtype == torch.float64 else torch.float32)
    assert torch.equal(alone, loss)
    assert_near(loss, expected)
    assert_near(weight, expected_weight)
    assert grad.dtype == images.dtype and grad.stride() == torch.empty_like(images).stride()
    assert_near(grad, expected_grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 16, 64, 64), (2, 3, 83, 90)], ids=str)
def test_larger_samples(
    device: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    for layout in ("contiguous", "channels_last"):
        check_vsd_loss(batch(shape, device, dtype, layout), backend, scales(shape[0], device))


@pytest.mark.parametrize("given", [False, True])
def test_the_definition_is_the_published_form(given: bool) -> None:
    """The images against a target held still, which is the images less their pull."""
    images, teacher, fake = (
        each.detach().double().requires_grad_() for each in batch(VIDEO, "cpu")
    )
    scale = scales(2, "cpu") if given else None
    w = 1 / ((images - teacher).abs().mean(dim=(1, 2, 3, 4), keepdim=True) + EPS).detach()
    if scale is not None:
        w = w * spread(scale, images)
    target = (images - (fake - teacher) * w).detach()
    loss = 0.5 * (images - target).square().flatten(1).sum(1)
    (grad,) = torch.autograd.grad(loss.sum(), images)
    made, weight = vsd_loss(images, teacher, fake, scale, eps=EPS, return_weight=True)
    torch.testing.assert_close(made, loss)
    torch.testing.assert_close(weight, w.flatten())
    made.sum().backward()
    torch.testing.assert_close(images.grad, grad)
    assert teacher.grad is None and fake.grad is None


@every_isa
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sick_samples_are_zeroed_and_reported(
    device: str, backend: str, dtype: torch.dtype, where: int, value: float
) -> None:
    operands = [*batch((4, 3, 5, 7), device, dtype), scales(4, device)]
    healthy_loss = vsd_loss(*operands, backend=backend)
    (healthy,) = torch.autograd.grad(healthy_loss.sum(), operands[0])
    with torch.no_grad():
        operands[where].view(4, -1)[2, -1] = value
    loss, weight = vsd_loss(*operands, backend=backend, return_weight=True)
    (grad,) = torch.autograd.grad(loss.sum(), operands[0])
    bad = weight.isnan()
    assert bad.tolist() == [False, False, True, False]
    assert torch.equal(loss, healthy_loss.masked_fill(bad, 0))
    assert torch.equal(grad, healthy.masked_fill(spread(bad, grad), 0))


@every_isa
def test_floor_and_eps_bound_the_weight(device: str, backend: str) -> None:
    images, _, fake = batch((3, 2, 5, 5), device)
    for floor, eps in ((0.01, 0.0), (0.0, 0.02), (0.01, 0.02)):
        options: dict[str, Any] = {"floor": floor, "eps": eps, "return_weight": True}
        _, weight = vsd_loss(images, images.detach(), fake, backend=backend, **options)
        assert_near(weight, torch.full_like(weight, 1 / (floor + eps)))


@pytest.mark.parametrize("grad_scale", [1.0, 0.25, -3.0])
def test_upstream_differs_between_samples(device: str, backend: str, grad_scale: float) -> None:
    operands = batch((4, 2, 9, 5), device)
    upstream = torch.tensor([0.0, 1.0, -3.0, 0.25], device=device)
    *_, (expected, *_) = exact(reference.vsd_loss, operands, None, 0.0, 1e-6)
    loss = vsd_loss(*operands, grad_scale=grad_scale, backend=backend)
    (grad,) = torch.autograd.grad(loss, operands[0], upstream)
    assert_near(grad, expected * spread(upstream.double(), grad), 3e-7)


def test_losses_do_not_depend_on_the_batch_or_the_threads(device: str, backend: str) -> None:
    operands = [each.detach() for each in batch((6, 3, 33, 31), device)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = vsd_loss(*operands, backend=backend)
        torch.set_num_threads(3)
        assert torch.equal(vsd_loss(*operands, backend=backend), whole)
    finally:
        torch.set_num_threads(before)
    parts = [vsd_loss(*(each[rows] for each in operands), backend=backend)
             for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]  # fmt: skip
    assert torch.equal(torch.cat(parts), whole)


def test_opcheck(device: str, backend: str) -> None:
    ops = torch.ops.sidfast
    x, t, f = batch((3, 2, 5, 4), device, layout="channels_last")
    plain, scale = (x.detach(), t.detach(), f.detach()), scales(3, device)
    calls = [
        (ops.vsd_loss, (x, *plain[1:], None, 0.0, 1e-6, 1.0)),
        (ops.vsd_loss, (x, *plain[1:], scale, 0.1, 0.0, 2.0)),
        (ops._vsd_loss, (*plain, scale, 0.0, 1e-6)),
        (ops._vsd_loss_grad, (*plain, None, 0.0, 1e-6, 3.0)),
    ]
    for op, args in calls:
        torch.library.opcheck(op.default, (*args, backend))


def around(x: Tensor, weight: Tensor, scale: Tensor, backend: str) -> Tensor:
    """The loss between elementwise work, as in an update."""
    images, teacher = x.tanh(), (x * weight).sin().detach()
    losses = [vsd_loss(images, teacher, teacher * 0.9, each, backend=backend)
              for each in (None, scale)]  # fmt: skip
    return (losses[0] + losses[1]).sum() * 0.5


def test_one_graph_serves_every_batch(device: str, backend: str) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(around, fullgraph=True, backend=counter)
    weight = torch.rand(3, 1, 1, device=device)
    for size in (2, 3, 5, 8):
        x = torch.randn(size, 3, 4, 4, device=device, requires_grad=True)
        losses = [each(x, weight, scales(size, device), backend) for each in (compiled, around)]
        torch.testing.assert_close(losses[0], losses[1])
        grads = [torch.autograd.grad(loss, x)[0] for loss in losses]
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)
    assert counter.frame_count <= 2


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: vsd_loss(X, X[:1], X), "teacher_x0"),
        (lambda: vsd_loss(X, X, X.int()), "torch.int32"),
        (lambda: vsd_loss(X, X, X, torch.ones(3)), "scale"),
        (lambda: vsd_loss(X, X, X, floor=0.0, eps=0.0), "not both 0"),
        (lambda: vsd_loss(X, X, X, floor=-1.0), "floor >= 0"),
        (lambda: vsd_loss(X, X, X, eps=float("nan")), "eps >= 0"),
        (lambda: vsd_loss(X, X, X, grad_scale=0.0), "grad_scale"),
    ],
)
def test_bad_input_is_named(call: Callable[[], Tensor], words: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert words in str(error.value) and "expected" in str(error.value)


def test_explicit_back_end_never_falls_back() -> None:
    with pytest.raises(BackendError, match="reference: can serve"):
        vsd_loss(X.double(), X, X, backend="native")
