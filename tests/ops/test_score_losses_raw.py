"""Score losses of raw network outputs: preconditioning and noise inside the operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sidfast.base.batch import spread
from sidfast.base.errors import BackendError, InputError
from sidfast.ops import (
    add_noise,
    dsm_loss,
    dsm_loss_raw,
    random,
    score_losses,
    sid_loss,
    sid_loss_raw,
)
from sidfast.ops.score_losses import reference
from sidfast.testing.backends import skip_unless_served
from sidfast.testing.losses import DATA, Preconditioning, assert_near, batch, exact, noise_levels
from sidfast.testing.tensors import INTERPRETED, LAYOUTS, poisoned_memory, relative_error

ROOM = score_losses
OPS = ("sid_loss_raw", "sid_loss_raw_grads", "dsm_loss_raw", "dsm_loss_raw_grad")
every_isa = pytest.mark.usefixtures("every_isa")

ALPHA, FLOOR = 1.2, 1e-5
LARGER = ((2, 6, 64, 48) if INTERPRETED else (3, 16, 64, 64), (2, 3, 83, 90))
SHAPES = (
    (2, 3, 20, 20) if INTERPRETED else (2, 3, 32, 32),
    (3, 4, 17, 5),
    (2, 3, 5),
    (5,),
    (0, 3, 8, 8),
    (2, 0, 4, 4),
)
# Of images and noisy images, and of raw outputs.
DTYPES = (
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float16),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float32),
    (torch.float64, torch.float32),
)
# The noise itself is made in float32: 4e-6 between back ends, times c_skip sigma <= 1/4.
ERROR = {False: 6e-7, True: 1.2e-6}


class Call:
    """One call's operands: images, two raw outputs and, without a key, noisy images."""

    def __init__(
        self,
        shape: Sequence[int],
        device: str,
        dtypes: tuple[torch.dtype, torch.dtype] = DTYPES[0],
        layout: str = "contiguous",
        *,
        keyed: bool,
    ) -> None:
        size, self.keyed = shape[0], keyed
        images, teacher, fake = (each.detach() for each in batch(shape, device))
        # Lower levels subtract images that are nearly equal: that is measured by itself below.
        self.precond = Preconditioning.of(noise_levels(size, device) + 0.3)
        self.key: dict[str, Any] = {
            "seed": torch.tensor(-7, device=device),
            "index": torch.arange(size, device=device) * 2**33 - 5,
            "stream": 11,
        }
        self.batches = [images.to(dtypes[0]), teacher.to(dtypes[1]), fake.to(dtypes[1])]
        if not keyed:
            noisy = add_noise(self.batches[0], self.precond.sigma, **self.key)
            self.batches.append(noisy)
        self.batches = [LAYOUTS[layout](each).requires_grad_() for each in self.batches]

    @property
    def noisy(self) -> Tensor | None:
        return None if self.keyed else self.batches[3]

    def sid(self, **options: Any) -> Any:
        given = self.key if self.keyed else {"noisy": self.noisy}
        return sid_loss_raw(*self.batches[:3], *self.precond, ALPHA, FLOOR, **given, **options)

    def dsm(self, **options: Any) -> Any:
        given = self.key if self.keyed else {"noisy": self.noisy}
        return dsm_loss_raw(*self.batches[:2], *self.precond, DATA, **given, **options)

    def folded(self) -> tuple[Any, ...]:
        """What follows the batches in the operators' schemas."""
        key = (self.key["seed"], self.key["index"]) if self.keyed else (None, None)
        stream = self.key["stream"] if self.keyed else 0
        return (self.precond.sigma, *key, stream, self.precond.c_skip, self.precond.c_out)

    def operands(self, *rest: Any, count: int = 3) -> tuple[Any, ...]:
        """Of the opaque operators, without gradients."""
        batches = [each.detach() for each in self.batches]
        noisy = None if self.keyed else batches[3]
        return (*batches[:count], noisy, *self.folded(), *rest)

    def exact_sid(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        folded = ([None] if self.keyed else []) + [*self.folded(), ALPHA, FLOOR]
        return exact(reference.sid_loss_raw, self.batches, *folded)

    def exact_dsm(self) -> tuple[Tensor, Tensor, Tensor]:
        batches = [self.batches[0], self.batches[1], *self.batches[3:]]
        folded = ([None] if self.keyed else []) + [*self.folded(), DATA]
        loss, weight, grads = exact(reference.dsm_loss_raw, batches, *folded)
        return loss, weight, grads[1]


both_modes = pytest.mark.parametrize("keyed", [False, True], ids=["noisy", "keyed"])


@every_isa
@both_modes
@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_losses_are_the_definition(
    device: str,
    backend: str,
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, torch.dtype],
    keyed: bool,
) -> None:
    for layout in LAYOUTS:
        check_both_losses(Call(shape, device, dtypes, layout, keyed=keyed), backend)


def check_both_losses(call: Call, backend: str) -> None:
    skip_unless_served(ROOM, backend, "sid_loss_raw", *call.operands(ALPHA, FLOOR))
    error = ERROR[call.keyed]
    with poisoned_memory():
        loss, weight = call.sid(backend=backend, return_weight=True)
        grads = torch.autograd.grad(loss.sum(), call.batches)
        with torch.no_grad():
            assert torch.equal(call.sid(backend=backend), loss)
    expected, expected_weight, expected_grads = call.exact_sid()
    assert_near(loss, expected, error)
    assert_near(weight, expected_weight, error)
    for operand, grad, expected_grad in zip(call.batches, grads, expected_grads, strict=True):
        assert grad.dtype == operand.dtype
        assert grad.stride() == torch.empty_like(operand).stride()
        assert_near(grad, expected_grad, error)
    raw = call.batches[1]
    with poisoned_memory():
        loss, weight = call.dsm(backend=backend, return_weight=True)
        (grad,) = torch.autograd.grad(loss.sum(), raw)
        with torch.no_grad():
            assert torch.equal(call.dsm(backend=backend), loss)
    expected, expected_weight, expected_grad = call.exact_dsm()
    assert_near(loss, expected, error)
    assert_near(weight, expected_weight, error)
    assert grad.dtype == raw.dtype and grad.stride() == torch.empty_like(raw).stride()
    assert_near(grad, expected_grad, error)


@both_modes
@pytest.mark.parametrize("dtypes", DTYPES[:2], ids=str)
@pytest.mark.parametrize("shape", LARGER, ids=str)
def test_larger_samples(
    device: str,
    backend: str,
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, torch.dtype],
    keyed: bool,
) -> None:
    for layout in ("contiguous", "channels_last"):
        check_both_losses(Call(shape, device, dtypes, layout, keyed=keyed), backend)


@every_isa
@both_modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_do_not_depend_on_the_batch_or_the_threads(
    device: str, backend: str, dtype: torch.dtype, keyed: bool
) -> None:
    shape = (6, 3, 33, 31)
    call = Call(shape, device, (torch.float32, dtype), keyed=keyed)

    def results(rows: slice) -> list[Tensor]:
        part = Call(shape, device, (torch.float32, dtype), keyed=keyed)
        part.batches = [each.detach()[rows].requires_grad_() for each in call.batches]
        part.precond = Preconditioning(*(each[rows] for each in call.precond))
        part.key["index"] = call.key["index"][rows]
        losses = part.sid(backend=backend), part.dsm(backend=backend)
        grads = torch.autograd.grad(losses[0].sum() + losses[1].sum(), part.batches)
        return [*(loss.detach() for loss in losses), *grads]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = results(slice(0, 6))
        torch.set_num_threads(3)
        assert all(map(torch.equal, results(slice(0, 6)), whole))
    finally:
        torch.set_num_threads(before)
    parts = [results(rows) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    for result, *pieces in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat(pieces), result)


@every_isa
def test_a_key_stands_for_what_add_noise_makes_of_it(device: str, backend: str) -> None:
    skip_unless_served(
        random, backend, "add_noise", *random.contract.plain_calls(device)["add_noise"]
    )
    for shape in ((4, 3, 32, 32), (3, 3, 91, 67), (2, 7)):
        keyed, given = (Call(shape, device, keyed=each) for each in (True, False))
        noisy = add_noise(
            given.batches[0].detach(), given.precond.sigma, **given.key, backend=backend
        )
        given.batches[3] = noisy.requires_grad_()
        losses = keyed.sid(backend=backend), given.sid(backend=backend)
        assert torch.equal(*losses)
        grads = torch.autograd.grad(losses[0].sum(), keyed.batches)
        to_images, *others, to_noisy = torch.autograd.grad(losses[1].sum(), given.batches)
        assert all(map(torch.equal, grads[1:], others))
        assert_near(grads[0], to_images.double() + to_noisy.double())
        losses = keyed.dsm(backend=backend), given.dsm(backend=backend)
        assert torch.equal(*losses)
        grads = [
            torch.autograd.grad(loss.sum(), call.batches[1])[0]
            for loss, call in zip(losses, (keyed, given), strict=True)
        ]
        assert torch.equal(*grads)


@both_modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_outputs_differ_by_exactly_nothing(
    device: str, backend: str, dtype: torch.dtype, keyed: bool
) -> None:
    call = Call((4, 3, 9, 7), device, (torch.float32, dtype), keyed=keyed)
    call.batches[2] = call.batches[1].detach().clone().requires_grad_()
    loss = call.sid(backend=backend)
    to_images, to_teacher, to_fake, *to_noisy = torch.autograd.grad(loss.sum(), call.batches)
    assert not loss.any() and not to_images.any() and not any(each.any() for each in to_noisy)
    assert to_teacher.any() and torch.equal(to_fake, -to_teacher)


def test_a_small_difference_survives_preconditioning(device: str, backend: str) -> None:
    """Nearly equal outputs at a low noise level, as right after the start."""
    images, teacher, _ = (each.detach() for each in batch((4, 3, 32, 32), device))
    fake = teacher + 1e-3 * torch.linspace(-1, 1, 32, device=device)
    precond = Preconditioning.of(torch.full((4,), 0.002, device=device))
    noisy = add_noise(images, precond.sigma, seed=1, index=torch.arange(4, device=device))
    x = images.clone().requires_grad_()
    folded = sid_loss_raw(x, teacher, fake, *precond, noisy=noisy, backend=backend)
    (grad,) = torch.autograd.grad(folded.sum(), x)
    denoised = [precond.denoised(raw, noisy) for raw in (teacher, fake)]
    (unfolded,) = torch.autograd.grad(sid_loss(x, *denoised).sum(), x)
    wide = [each.double() for each in (images, teacher, fake, noisy)]
    constants = (precond.sigma, None, None, 0, precond.c_skip, precond.c_out, ALPHA, FLOOR)
    *_, (expected, *_) = exact(reference.sid_loss_raw, wide, *constants)
    assert relative_error(grad, expected) < 1e-6
    assert relative_error(unfolded, expected) > 1e-2


@pytest.mark.parametrize("need", [(a, b, c, d) for a in (0, 1) for b in (0, 1) for c in (0, 1)
                                  for d in (0, 1)])  # fmt: skip
def test_only_needed_gradients_are_made(
    device: str, backend: str, need: tuple[int, int, int, int]
) -> None:
    call = Call((3, 2, 5, 5), device, keyed=False)
    *_, expected = call.exact_sid()
    for operand, needed in zip(call.batches, need, strict=True):
        operand.requires_grad_(bool(needed))
    loss = call.sid(backend=backend)
    assert loss.requires_grad == any(need)
    if loss.requires_grad:
        loss.sum().backward()
    for operand, needed, gradient in zip(call.batches, need, expected, strict=True):
        assert (operand.grad is not None) == bool(needed)
        if operand.grad is not None:
            assert_near(operand.grad, gradient, ERROR[False])


@both_modes
def test_dsm_loss_raw_moves_the_network_alone(device: str, backend: str, keyed: bool) -> None:
    call = Call((3, 2, 5, 5), device, keyed=keyed)
    call.precond = Preconditioning(*(each.requires_grad_() for each in call.precond))
    call.dsm(backend=backend).sum().backward()
    images, raw, _, *noisy = call.batches
    assert raw.grad is not None
    assert all(each.grad is None for each in (images, *noisy, *call.precond))


@both_modes
def test_upstream_differs_between_samples(device: str, backend: str, keyed: bool) -> None:
    call = Call((4, 2, 9, 5), device, keyed=keyed)
    upstream = torch.tensor([0.0, 1.0, -3.0, 0.25], device=device)
    *_, expected = call.exact_sid()
    for grad_scale in (1.0, 0.37):
        loss = call.sid(backend=backend, grad_scale=grad_scale)
        grads = torch.autograd.grad(loss, call.batches, upstream)
        for grad, gradient in zip(grads, expected, strict=True):
            assert_near(grad, gradient * spread(upstream.double(), gradient), ERROR[True])


@every_isa
@both_modes
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", range(7))
def test_sick_samples_are_zeroed_and_reported(
    device: str, backend: str, keyed: bool, where: int, value: float
) -> None:
    call = Call((4, 3, 5, 7), device, (torch.float32, torch.bfloat16), keyed=keyed)
    healthy_loss = call.sid(backend=backend)
    healthy = torch.autograd.grad(healthy_loss.sum(), call.batches)
    if where >= len(call.batches) + 3:
        pytest.skip("no noisy images")
    with torch.no_grad():
        sick = [*call.batches, *call.precond][where]
        sick.view(4, -1)[2, -1] = value
    affects_sid = keyed or sick is not call.precond.sigma
    loss, weight = call.sid(backend=backend, return_weight=True)
    grads = torch.autograd.grad(loss.sum(), call.batches)
    bad = torch.tensor([False, False, affects_sid, False], device=device)
    assert torch.equal(weight.isnan(), bad) and torch.equal(loss, healthy_loss.masked_fill(bad, 0))
    for grad, healthy_grad in zip(grads, healthy, strict=True):
        assert torch.equal(grad, healthy_grad.masked_fill(spread(bad, grad), 0))
    affects_dsm = sick is not call.batches[2]
    loss, weight = call.dsm(backend=backend, return_weight=True)
    (grad,) = torch.autograd.grad(loss.sum(), call.batches[1])
    assert weight.isnan().tolist() == [False, False, affects_dsm, False]
    assert loss.isfinite().all() and bool(loss[2]) != affects_dsm
    assert grad.isfinite().all() and bool(grad[2].any()) != affects_dsm and grad[3].any()


@pytest.mark.parametrize("keyed", [False, True])
def test_the_definition_is_the_formula(keyed: bool) -> None:
    call = Call((3, 2, 5, 4), "cpu", keyed=keyed)
    leaves = [each.detach().double().requires_grad_() for each in call.batches]
    images, teacher, fake, *given = leaves
    if given:
        noisy = given[0]
    else:
        noise = add_noise(torch.zeros_like(images), call.precond.sigma, **call.key)
        noisy = images + noise
    skip, out = (spread(each, images).double() for each in call.precond[1:])
    t, f = skip * noisy + out * teacher, skip * noisy + out * fake
    w = (images - t).abs().flatten(1).mean(1).clamp(min=FLOOR).detach()
    loss = ((t - f) * ((t - images) - ALPHA * (t - f))).flatten(1).sum(1) / w
    expected, weight, expected_grads = call.exact_sid()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(1 / w, weight)
    for grad, expected_grad in zip(
        torch.autograd.grad(loss.sum(), leaves, retain_graph=True), expected_grads, strict=True
    ):
        torch.testing.assert_close(grad, expected_grad)
    loss = dsm_loss(images.detach(), t, call.precond.sigma, backend="reference")
    expected, weight, expected_grad = call.exact_dsm()
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss.sum(), teacher)
    torch.testing.assert_close(grad, expected_grad)


@both_modes
def test_gradcheck_of_the_operators(keyed: bool) -> None:
    """Where w rests on its floor it does not move, and the gradients are plain derivatives."""
    call = Call((2, 2, 3, 2), "cpu", (torch.float64, torch.float64), keyed=keyed)

    def loss(*batches: Tensor) -> Tensor:
        given = call.key if keyed else {"noisy": batches[3]}
        return sid_loss_raw(*batches[:3], *call.precond, ALPHA, 100.0, **given)

    assert torch.autograd.gradcheck(loss, call.batches)


@both_modes
def test_opcheck(device: str, backend: str, keyed: bool) -> None:
    ops = torch.ops.sidfast
    for dtypes, layout in ((DTYPES[0], "contiguous"), (DTYPES[1], "channels_last")):
        call = Call((3, 2, 5, 4), device, dtypes, layout, keyed=keyed)
        plain, noisy = call.operands, call.noisy
        need = [True, False, True, not keyed]
        calls = [
            (ops.sid_loss_raw, (*call.batches[:3], noisy, *call.folded(), ALPHA, FLOOR, 2.0)),
            (ops._sid_loss_raw, plain(ALPHA, FLOOR)),
            (ops._sid_loss_raw_grads, plain(ALPHA, FLOOR, 1.0, need)),
            (ops.dsm_loss_raw, (*plain(DATA, 1.0, count=2)[:1], call.batches[1],
                                *plain(DATA, 1.0, count=2)[2:])),
            (ops._dsm_loss_raw, plain(DATA, count=2)),
            (ops._dsm_loss_raw_grad, plain(DATA, 3.0, count=2)),
        ]  # fmt: skip
        for op, args in calls:
            torch.library.opcheck(op.default, (*args, backend))


def both_losses(x: Tensor, weight: Tensor, sigma: Tensor, index: Tensor, backend: str) -> Tensor:
    """Losses between elementwise work, as in the updates."""
    images, teacher = x.tanh(), (x * weight).sin()
    fake = teacher + weight * x.cos()
    precond = Preconditioning.of(sigma)
    where: dict[str, Any] = {"backend": backend, "return_weight": True}
    key: dict[str, Any] = {"seed": 5, "index": index, "stream": 2}
    losses = [
        sid_loss_raw(images, teacher, fake, *precond, **key, **where),
        sid_loss_raw(images, teacher, fake, *precond, noisy=images * 2, **where),
        dsm_loss_raw(images.detach(), fake, *precond, **key, **where),
        dsm_loss_raw(images.detach(), fake, *precond, noisy=images.detach() * 2, **where),
    ]
    return sum((value * inverse.detach()).sum() for value, inverse in losses) * torch.ones(())


def test_one_graph_serves_every_batch(device: str, backend: str) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(both_losses, fullgraph=True, backend=counter)
    weight = torch.rand(3, 1, 1, device=device, requires_grad=True)
    for size in (2, 3, 5, 8):
        x = torch.randn(size, 3, 4, 4, device=device, requires_grad=True)
        sigma, index = noise_levels(size, device) + 0.2, torch.arange(size, device=device)
        losses = [each(x, weight, sigma, index, backend) for each in (compiled, both_losses)]
        torch.testing.assert_close(losses[0], losses[1])
        grads = [torch.autograd.grad(loss, (x, weight)) for loss in losses]
        for ours, eager in zip(*grads, strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-3)
    assert counter.frame_count <= 2


X, LEVEL, INDEX = torch.zeros(2, 3), torch.ones(2), torch.arange(2)
PRECOND = (LEVEL, LEVEL, LEVEL)
KEY: dict[str, Any] = {"seed": 0, "index": INDEX}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sid_loss_raw(X, X, X, *PRECOND), "none of them"),
        (lambda: sid_loss_raw(X, X, X, *PRECOND, noisy=X, **KEY), "noisy and seed and index"),
        (lambda: sid_loss_raw(X, X, X, *PRECOND, seed=0), "either noisy, or seed and index"),
        (lambda: sid_loss_raw(X, X, X[:1], *PRECOND, **KEY), "fake_raw"),
        (lambda: sid_loss_raw(X, X, X, *PRECOND, noisy=X[:, :2]), "noisy"),
        (lambda: sid_loss_raw(X, X, X.int(), *PRECOND, **KEY), "torch.int32"),
        (lambda: sid_loss_raw(X, X, X, LEVEL, LEVEL[:1], LEVEL, **KEY), "c_skip"),
        (lambda: sid_loss_raw(X, X, X, LEVEL, LEVEL, LEVEL.double(), **KEY), "c_out"),
        (lambda: sid_loss_raw(X, X, X, *PRECOND, seed=0, index=INDEX[:1]), "len(index)"),
        (lambda: sid_loss_raw(X, X, X, *PRECOND, **KEY, stream=-1), "stream"),
        (lambda: sid_loss_raw(X, X, X, *PRECOND, float("inf"), **KEY), "alpha"),
        (lambda: sid_loss_raw(X, X, X, *PRECOND, 1.0, -1.0, **KEY), "floor"),
        (lambda: dsm_loss_raw(X, X[:, :1], *PRECOND, **KEY), "raw"),
        (lambda: dsm_loss_raw(X, X, *PRECOND, 0.0, **KEY), "sigma_data"),
        (lambda: dsm_loss_raw(X, X, *PRECOND, **KEY, grad_scale=0.0), "grad_scale"),
        (lambda: dsm_loss_raw(X, X, *PRECOND), "none of them"),
    ],
)
def test_bad_input_is_named(call: Callable[[], Tensor], words: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert words in str(error.value) and "expected" in str(error.value)


def test_explicit_back_end_never_falls_back() -> None:
    with pytest.raises(BackendError, match=r"needs one dtype.*reference: can serve"):
        sid_loss_raw(X, X, X.bfloat16(), *PRECOND, **KEY, backend="native")
