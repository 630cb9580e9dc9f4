"""Score losses against their definition in float64, their gradients, and sick samples."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from sidfast.base.errors import BackendError, InputError
from sidfast.ops import dsm_loss, score_losses, sid_loss
from sidfast.ops.score_losses import reference
from sidfast.testing.backends import skip_unless_served
from sidfast.testing.goldens import golden
from sidfast.testing.losses import assert_near, batch, exact, noise_levels
from sidfast.testing.tensors import (
    DTYPES,
    INTERPRETED,
    LAYOUTS,
    SHAPES,
    poisoned_memory,
    relative_error,
)

ROOM = score_losses
OPS = ("sid_loss", "sid_loss_grads", "dsm_loss", "dsm_loss_grad")
every_isa = pytest.mark.usefixtures("every_isa")
ALPHA, FLOOR, SIGMA_DATA = 1.2, 1e-5, 0.5
LARGER = ((2, 6, 64, 48) if INTERPRETED else (3, 16, 64, 64), (2, 3, 83, 90))


@every_isa
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sid_loss_is_the_definition(
    device: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    for layout in LAYOUTS:
        check_sid_loss(device, backend, shape, dtype, layout)


def check_sid_loss(
    device: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype, layout: str
) -> None:
    operands = batch(shape, device, dtype, layout)
    skip_unless_served(ROOM, backend, "sid_loss", *operands, ALPHA, FLOOR)
    with poisoned_memory():
        loss, weight = sid_loss(*operands, ALPHA, backend=backend, return_weight=True)
        with torch.no_grad():
            alone = sid_loss(*operands, ALPHA, backend=backend)
        grads = torch.autograd.grad(loss.sum(), operands)
    expected, expected_weight, expected_grads = exact(reference.sid_loss, operands, ALPHA, FLOOR)
    assert loss.shape == weight.shape == shape[:1] and weight.isfinite().all()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(alone, loss)
    assert_near(loss, expected)
    assert_near(weight, expected_weight)
    for operand, grad, expected_grad in zip(operands, grads, expected_grads, strict=True):
        assert grad.dtype == dtype and grad.stride() == torch.empty_like(operand).stride()
        assert_near(grad, expected_grad)


@every_isa
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dsm_loss_is_the_definition(
    device: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    for layout in LAYOUTS:
        check_dsm_loss(device, backend, shape, dtype, layout)


def check_dsm_loss(
    device: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype, layout: str
) -> None:
    images, denoised, _ = batch(shape, device, dtype, layout)
    sigma = noise_levels(shape[0], device)
    skip_unless_served(ROOM, backend, "dsm_loss", images, denoised, sigma, SIGMA_DATA)
    with poisoned_memory():
        loss, weight = dsm_loss(images, denoised, sigma, backend=backend, return_weight=True)
        with torch.no_grad():
            alone = dsm_loss(images, denoised, sigma.view(-1, 1, 1, 1), backend=backend)
        (grad,) = torch.autograd.grad(loss.sum(), denoised)
    expected, expected_weight, (_, expected_grad) = exact(
        reference.dsm_loss, (images, denoised), sigma, SIGMA_DATA
    )
    assert loss.shape == weight.shape == shape[:1] and weight.isfinite().all()
    assert torch.equal(alone, loss)
    assert_near(loss, expected)
    assert_near(weight, expected_weight)
    assert grad.dtype == dtype and grad.stride() == torch.empty_like(denoised).stride()
    assert_near(grad, expected_grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", LARGER, ids=str)
def test_larger_samples_sick_ones_too(
    device: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    for layout in ("contiguous", "channels_last"):
        check_sid_loss(device, backend, shape, dtype, layout)
        check_dsm_loss(device, backend, shape, dtype, layout)
    operands = batch(shape, device, dtype)
    with torch.no_grad():
        operands[1][0, -1, -1, -1] = torch.nan
    loss, weight = sid_loss(*operands, backend=backend, return_weight=True)
    assert weight.isnan().tolist() == [True] + [False] * (shape[0] - 1) and not loss[0]
    for grad in torch.autograd.grad(loss.sum(), operands):
        assert not grad[0].any() and grad[1:].isfinite().all() and grad[1:].any()
    sigma = noise_levels(shape[0], device)
    loss = dsm_loss(*operands[:2], sigma, backend=backend)
    (grad,) = torch.autograd.grad(loss.sum(), operands[1])
    assert not loss[0] and not grad[0].any() and grad[1:].isfinite().all() and grad[1:].any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_too_large_to_be_held(device: str, backend: str, layout: str) -> None:
    shape = (2, 3, 91, 67)
    check_sid_loss(device, backend, shape, torch.float32, layout)
    check_dsm_loss(device, backend, shape, torch.float32, layout)


def test_operands_of_different_types_and_layouts(device: str) -> None:
    images, teacher, fake = batch((3, 4, 17, 5), device)
    operands = [
        LAYOUTS["channels_last"](images.detach().double()).requires_grad_(),
        teacher.detach().bfloat16().requires_grad_(),
        fake,
    ]
    loss = sid_loss(*operands)
    grads = torch.autograd.grad(loss.sum(), operands)
    expected, _, expected_grads = exact(reference.sid_loss, operands, ALPHA, FLOOR)
    assert loss.dtype == torch.float64 and relative_error(loss, expected) < 1e-14
    for operand, grad, expected_grad in zip(operands, grads, expected_grads, strict=True):
        assert grad.dtype == operand.dtype and grad.stride() == operand.stride()
        assert_near(grad, expected_grad)


@pytest.mark.parametrize("need", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
def test_only_needed_gradients_are_made(
    device: str, backend: str, need: tuple[int, int, int]
) -> None:
    operands = batch((3, 2, 5, 5), device)
    *_, expected = exact(reference.sid_loss, operands, ALPHA, FLOOR)
    for operand, needed in zip(operands, need, strict=True):
        operand.requires_grad_(bool(needed))
    loss = sid_loss(*operands, backend=backend)
    assert loss.requires_grad == any(need)
    if loss.requires_grad:
        loss.sum().backward()
    for operand, needed, gradient in zip(operands, need, expected, strict=True):
        assert (operand.grad is not None) == bool(needed)
        if operand.grad is not None:
            assert_near(operand.grad, gradient)


def test_images_and_sigma_get_no_gradient_from_dsm_loss(device: str, backend: str) -> None:
    images, denoised, _ = batch((3, 2, 5, 5), device)
    sigma = noise_levels(3, device).requires_grad_()
    dsm_loss(images, denoised, sigma, backend=backend).sum().backward()
    assert images.grad is None and sigma.grad is None and denoised.grad is not None


@pytest.mark.parametrize("scale", [1.0, 0.1, 100 / 3, -2.0])
@pytest.mark.parametrize("guess", ["right", "wrong"])
def test_grad_scale_does_not_change_gradients(
    device: str, backend: str, scale: float, guess: str
) -> None:
    operands = batch((3, 2, 9, 5), device)
    sigma = noise_levels(3, device)
    grad_scale = scale if guess == "right" else 7.0
    upstream = torch.full((3,), scale, device=device)
    *_, expected = exact(reference.sid_loss, operands, ALPHA, FLOOR)
    loss = sid_loss(*operands, grad_scale=grad_scale, backend=backend)
    for _ in range(2):
        grads = torch.autograd.grad(loss, operands, upstream, retain_graph=True)
        for grad, gradient in zip(grads, expected, strict=True):
            assert_near(grad, gradient * scale, 3e-7)
    *_, (_, expected_grad) = exact(reference.dsm_loss, operands[:2], sigma, SIGMA_DATA)
    loss = dsm_loss(*operands[:2], sigma, grad_scale=grad_scale, backend=backend)
    (grad,) = torch.autograd.grad(loss, operands[1], upstream)
    assert_near(grad, expected_grad * scale, 3e-7)


def test_right_grad_scale_hands_the_gradients_on_untouched() -> None:
    operands = batch((3, 2, 9, 5), "cpu")
    loss = sid_loss(*operands, grad_scale=25.0)
    upstream = torch.full((3,), 25.0)
    grads = [torch.autograd.grad(loss, operands, upstream, retain_graph=True) for _ in range(2)]
    assert [g.data_ptr() for g in grads[0]] == [g.data_ptr() for g in grads[1]]
    upstream[1] = 24.0
    other = torch.autograd.grad(loss, operands, upstream)
    assert other[0].data_ptr() != grads[0][0].data_ptr()


@pytest.mark.parametrize("shape", [(4, 2, 9, 5), (3, 4, 4, 4), (2, 3, 64, 64), (2, 8), (0, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_device_back_ends_rescale_in_place_what_nobody_else_sees(
    device: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype, layout: str
) -> None:
    if layout == "channels_last" and len(shape) != 4:
        pytest.skip("channels_last has four dimensions")
    operands = batch(shape, device, dtype, layout)
    upstream = torch.linspace(-1, 2, shape[0], device=device)
    upstream[:1] = 0.5
    loss = sid_loss(*operands, grad_scale=0.5, backend=backend)
    kept = loss.grad_fn.saved_tensors
    before = [grad.clone() for grad in kept]
    for keeps in (True, False):
        grads = torch.autograd.grad(loss, operands, upstream, retain_graph=keeps)
        in_place = [a.data_ptr() == b.data_ptr() for a, b in zip(grads, kept, strict=True)]
        assert not any(in_place) or not keeps or not shape[0]
        if backend in ("triton", "cuda") and not keeps and shape[0]:
            assert all(in_place)
        for grad, old in zip(grads, before, strict=True):
            factor = (upstream / 0.5).reshape(-1, *[1] * (old.dim() - 1))
            torch.testing.assert_close(grad, (old.float() * factor).to(dtype), rtol=1e-6, atol=0)
            assert torch.equal(grad[:1], old[:1])
    # One number for all samples, with stride 0, and two gradients of the three.
    loss = sid_loss(operands[0], operands[1].detach(), operands[2], backend=backend)
    grads = torch.autograd.grad(loss.sum() * 3, operands[::2])
    for grad, old in zip(grads, before[::2], strict=True):
        torch.testing.assert_close(grad, (old.float() * 6).to(dtype), rtol=1e-2, atol=1e-6)


def test_a_gradient_that_was_handed_on_is_never_changed(device: str, backend: str) -> None:
    operands = batch((3, 2, 4, 4), device)
    loss = sid_loss(*operands, grad_scale=0.5, backend=backend)
    right = torch.full((3,), 0.5, device=device)
    first = torch.autograd.grad(loss, operands, right, retain_graph=True)
    before = [grad.clone() for grad in first]
    second = torch.autograd.grad(loss, operands, 2 * right)
    for grad, old, doubled in zip(first, before, second, strict=True):
        assert torch.equal(grad, old) and torch.equal(doubled, 2 * old)


def test_upstream_of_float64_is_not_rescaled_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes where a batch without gradient is of float64."""
    monkeypatch.setattr(score_losses.contract, "keeps_graph", lambda: False)
    module = SimpleNamespace(rescale=print, reasons=lambda *args: [])
    row = SimpleNamespace(name="cuda", loaded=(module, ""))
    ctx = SimpleNamespace(backend="cuda", grad_scale=1.0, handed_on=False)
    for dtype, function in ((torch.float32, print), (torch.float64, None)):
        upstream = torch.ones(2, dtype=dtype)
        found = score_losses.contract._in_place_rescale(ctx, [row], upstream, [torch.ones(2, 3)])
        assert found is function


def test_batched_upstream_gradients() -> None:
    operands = batch((3, 2, 4, 4), "cpu")
    loss = sid_loss(*operands)
    rows = torch.eye(3)
    batched = torch.autograd.grad(loss, operands, rows, retain_graph=True, is_grads_batched=True)
    for i, row in enumerate(rows):
        for all_of_them, grad in zip(
            batched, torch.autograd.grad(loss, operands, row, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(all_of_them[i], grad)


def test_upstream_differs_between_samples(device: str, backend: str) -> None:
    operands = batch((4, 2, 9, 5), device)
    upstream = torch.tensor([0.0, 1.0, -3.0, 0.25], device=device)
    *_, expected = exact(reference.sid_loss, operands, ALPHA, FLOOR)
    loss = sid_loss(*operands, backend=backend)
    grads = torch.autograd.grad(loss, operands, upstream)
    for grad, gradient in zip(grads, expected, strict=True):
        assert_near(grad, gradient * upstream.double().view(-1, 1, 1, 1), 3e-7)


@every_isa
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sick_samples_are_zeroed_and_reported(
    device: str, backend: str, dtype: torch.dtype, where: int, value: float
) -> None:
    operands = batch((4, 3, 5, 7), device, dtype)
    healthy_loss = sid_loss(*operands, backend=backend)
    healthy = torch.autograd.grad(healthy_loss.sum(), operands)
    with torch.no_grad():
        operands[where][2, 1, 4, 6] = value
    loss, weight = sid_loss(*operands, backend=backend, return_weight=True)
    grads = torch.autograd.grad(loss.sum(), operands)
    bad = weight.isnan()
    assert bad.tolist() == [False, False, True, False]
    assert torch.equal(loss, healthy_loss.masked_fill(bad, 0))
    for grad, healthy_grad in zip(grads, healthy, strict=True):
        assert torch.equal(grad, healthy_grad.masked_fill(bad.view(-1, 1, 1, 1), 0))
    if where < 2:
        sigma = noise_levels(4, device)
        loss, weight = dsm_loss(*operands[:2], sigma, backend=backend, return_weight=True)
        (grad,) = torch.autograd.grad(loss.sum(), operands[1])
        assert weight.isnan().tolist() == [False, False, True, False]
        assert loss[2] == 0 and loss.isfinite().all()
        assert not grad[2].any() and grad.isfinite().all() and grad[3].any()


@every_isa
def test_sick_noise_levels_are_zeroed_and_reported(device: str, backend: str) -> None:
    images, denoised, _ = batch((4, 3, 5, 7), device)
    sigma = torch.tensor([1.0, 0.0, float("nan"), 2.0], device=device)
    loss, weight = dsm_loss(images, denoised, sigma, backend=backend, return_weight=True)
    (grad,) = torch.autograd.grad(loss.sum(), denoised)
    assert weight.isnan().tolist() == [False, True, True, False]
    assert loss.isfinite().all() and grad.isfinite().all() and not grad[1:3].any()


@every_isa
def test_floor_bounds_the_weight(device: str, backend: str) -> None:
    images, _, fake = batch((3, 2, 5, 5), device)
    operands = [images, images.detach().clone().requires_grad_(), fake]
    loss = sid_loss(*operands, 1.0, 0.01, backend=backend)
    grads = torch.autograd.grad(loss.sum(), operands)
    expected, _, expected_grads = exact(reference.sid_loss, operands, 1.0, 0.01)
    assert_near(loss, expected)
    for grad, gradient in zip(grads, expected_grads, strict=True):
        assert_near(grad, gradient)


@every_isa
def test_losses_do_not_depend_on_the_batch_or_the_threads(device: str, backend: str) -> None:
    operands = [each.detach() for each in batch((6, 3, 33, 31), device)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = sid_loss(*operands, backend=backend)
        torch.set_num_threads(3)
        assert torch.equal(sid_loss(*operands, backend=backend), whole)
    finally:
        torch.set_num_threads(before)
    parts = [sid_loss(*(each[rows] for each in operands), backend=backend)
             for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]  # fmt: skip
    assert torch.equal(torch.cat(parts), whole)


def test_gradcheck_of_the_definition() -> None:
    operands = [each.detach().double().requires_grad_() for each in batch((2, 2, 3, 2), "cpu")]
    images, teacher, fake = operands
    held = (teacher - images).detach().abs().flatten(1).mean(1)

    def loss_of(x: Tensor, t: Tensor, f: Tensor) -> Tensor:
        """The definition with its weight held, as the gradients hold it."""
        free, _ = reference.sid_loss(x, t, f, ALPHA, FLOOR)
        now = (t - x).abs().flatten(1).mean(1).detach()
        return free * now / held

    assert torch.autograd.gradcheck(loss_of, operands)
    assert torch.autograd.gradcheck(
        lambda f: reference.dsm_loss(images.detach(), f, noise_levels(2, "cpu"), SIGMA_DATA)[0],
        (fake,),
    )


def test_second_derivatives_are_refused(device: str, backend: str) -> None:
    operands = batch((2, 3, 4, 4), device)
    loss = sid_loss(*operands, backend=backend).sum()
    with pytest.raises(InputError, match="create_graph"):
        torch.autograd.grad(loss, operands, create_graph=True)


@every_isa
@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2])
@pytest.mark.parametrize("name", ["genloss_4x3x32x32.npz", "genloss_3x4x17x5.npz"])
def test_sid_loss_gives_the_authors_numbers(
    device: str, backend: str, name: str, alpha: float
) -> None:
    data = golden(name)
    keys = ("y", "y_real", "y_fake")
    operands = [torch.from_numpy(data[key]).to(device).requires_grad_() for key in keys]
    loss = sid_loss(*operands, alpha, backend=backend)
    scalar = loss.sum() * 100 / len(loss)
    per_sample = torch.from_numpy(data[f"loss_a{alpha}_f64"]).flatten(1).sum(1)
    assert relative_error(loss.cpu(), per_sample) <= 2e-7
    assert scalar.item() == pytest.approx(data[f"scalar_a{alpha}_f64"].item(), rel=2e-7)
    for key, grad in zip(keys, torch.autograd.grad(loss.sum(), operands), strict=True):
        assert relative_error(grad.cpu(), torch.from_numpy(data[f"g_{key}_a{alpha}_f64"])) <= 2e-7


@every_isa
def test_dsm_loss_gives_the_authors_numbers(device: str, backend: str) -> None:
    data = golden("fakeloss_4x3x32x32.npz")
    images = torch.from_numpy(data["y"]).to(device)
    denoised = torch.from_numpy(data["y_fake"]).to(device).requires_grad_()
    sigma = torch.from_numpy(data["sigma_f64"]).float().to(device)
    loss = dsm_loss(images, denoised, sigma, backend=backend)
    per_sample = torch.from_numpy(data["loss_f64"]).flatten(1).sum(1)
    assert relative_error(loss.cpu(), per_sample) <= 2e-7
    (grad,) = torch.autograd.grad(loss.sum(), denoised)
    assert relative_error(grad.cpu(), torch.from_numpy(data["g_y_fake_f64"])) <= 2e-7


def test_opcheck(device: str, backend: str) -> None:
    ops = torch.ops.sidfast
    x, t, f = batch((3, 2, 5, 4), device)
    last = LAYOUTS["channels_last"]
    u, v, w = (last(each.detach()).requires_grad_() for each in (x, t, f))
    sigma = noise_levels(3, device)
    calls = [
        (ops.sid_loss, (x, t, f, ALPHA, FLOOR, 1.0)),
        (ops.sid_loss, (u.detach(), v, w, ALPHA, FLOOR, 2.0)),
        (ops._sid_loss, (x.detach(), t.detach(), f.detach(), ALPHA, FLOOR)),
        (ops._sid_loss_grads, (*map(Tensor.detach, (u, t, f)), ALPHA, FLOOR, 1.0, (1, 0, 1))),
        (ops.dsm_loss, (x.detach(), t, sigma, SIGMA_DATA, 1.0)),
        (ops.dsm_loss, (u.detach(), v, sigma, SIGMA_DATA, 3.0)),
        (ops._dsm_loss, (x.detach(), t.detach(), sigma, SIGMA_DATA)),
        (ops._dsm_loss_grad, (u.detach(), v.detach(), sigma, SIGMA_DATA, 1.0)),
    ]
    for op, args in calls:
        torch.library.opcheck(op.default, (*args, backend))


def both_losses(x: Tensor, weight: Tensor, sigma: Tensor, backend: str) -> Tensor:
    """Losses between elementwise work, as in the updates."""
    images, teacher = x.tanh(), (x * weight).sin()
    fake = teacher + weight * x.cos()
    generator_loss = sid_loss(images, teacher, fake, grad_scale=0.5, backend=backend)
    fake_loss, fake_weight = dsm_loss(
        images.detach(), fake, sigma, backend=backend, return_weight=True
    )
    return (generator_loss + fake_loss).sum() * 0.5 + fake_weight.sum()


def test_one_graph_serves_every_batch(device: str, backend: str) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(both_losses, fullgraph=True, backend=counter)
    weight = torch.rand(3, 1, 1, device=device, requires_grad=True)
    for size in (2, 3, 5, 8):
        x = torch.randn(size, 3, 4, 4, device=device, requires_grad=True)
        sigma = noise_levels(size, device)
        losses = [function(x, weight, sigma, backend) for function in (compiled, both_losses)]
        torch.testing.assert_close(losses[0], losses[1])
        grads = [torch.autograd.grad(loss, (x, weight)) for loss in losses]
        for ours, eager in zip(*grads, strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)
    assert counter.frame_count <= 2


def test_inductor_gives_the_eager_gradients() -> None:
    torch.compiler.reset()
    x = torch.randn(3, 3, 4, 4, requires_grad=True)
    weight = torch.rand(3, 1, 1, requires_grad=True)
    compiled = torch.compile(both_losses, fullgraph=True)
    losses = [each(x, weight, noise_levels(3, "cpu"), "auto") for each in (compiled, both_losses)]
    grads = [torch.autograd.grad(loss, (x, weight)) for loss in losses]
    for ours, eager in zip(*grads, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sid_loss(X, X[:1], X), "teacher_x0"),
        (lambda: sid_loss(X, X, X.int()), "torch.int32"),
        (lambda: sid_loss(X, X.to("meta"), X), "one device"),
        (lambda: sid_loss(X, X, X, float("nan")), "alpha"),
        (lambda: sid_loss(X, X, X, 1.0, 0.0), "floor"),
        (lambda: sid_loss(X, X, X.clone().requires_grad_(), grad_scale=0.0), "grad_scale"),
        (lambda: sid_loss(X[0, 0], X[0, 0], X[0, 0]), "(B, ...)"),
        (lambda: dsm_loss(X, X[:, :2], torch.ones(2)), "denoised"),
        (lambda: dsm_loss(X, X, torch.ones(3)), "shape (2,)"),
        (lambda: dsm_loss(X, X, torch.ones(2, dtype=torch.float64)), "torch.float64"),
        (lambda: dsm_loss(X, X, torch.ones(2), 0.0), "sigma_data"),
        (lambda: sid_loss(X.numpy(), X, X), "images as a torch.Tensor, got ndarray"),
        (lambda: sid_loss(X, X, None), "fake_x0 as a torch.Tensor, got NoneType"),
        (lambda: dsm_loss(X, X, 0.5), "sigma as a torch.Tensor, got float"),
    ],
)
def test_bad_input_is_named(call: Callable[[], Tensor], words: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert words in str(error.value) and "expected" in str(error.value)


def test_explicit_back_end_never_falls_back() -> None:
    with pytest.raises(BackendError, match="reference: can serve"):
        sid_loss(X.double(), X, X, backend="native")
