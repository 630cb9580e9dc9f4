"""Group normalisation with SiLU against its definition in float64, its gradients, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sidfast.base import native
from sidfast.base.errors import BackendError, InputError
from sidfast.ops import group_norm, group_norm_silu
from sidfast.testing.backends import instruction_set
from sidfast.testing.tensors import DTYPES, LAYOUTS, poisoned_memory, relative_error

ROOM = group_norm
every_isa = pytest.mark.usefixtures("every_isa")
EPS = 1e-6
# Blocks of the published networks, the digits', odd sizes, a group as wide as the image is small.
SHAPES = (
    ((2, 256, 16, 16), 32),
    ((5, 48, 8, 8), 12),
    ((3, 37 * 2, 3, 5), 2),
    ((2, 12, 1, 1), 3),
    ((0, 8, 4, 4), 2),
)
MODES = ("plain", "offset", "adaptive")


def operands(
    shape: tuple[int, ...],
    mode: str,
    device: str,
    dtype: torch.dtype = torch.float32,
    layout: str = "channels_last",
) -> dict[str, Tensor]:
    """x off centre, and parameters; all needing gradients."""
    generator = torch.Generator().manual_seed(sum(shape))

    def randn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    batch, channels = shape[:2]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    made = {"x": LAYOUTS[layout]((2 * randn(*shape) + 1).to(device, dtype))}
    made |= {name: randn(channels).to(device, wide) for name in ("weight", "bias")}
    names = {"plain": (), "offset": ("offset",), "adaptive": ("scale", "shift")}[mode]
    made |= {name: randn(batch, channels).to(device, wide) for name in names}
    return {name: each.requires_grad_() for name, each in made.items()}


def call(given: dict[str, Tensor], groups: int, **settings: Any) -> Tensor:
    keywords = {k: v for k, v in given.items() if k in ("offset", "scale", "shift")}
    return group_norm_silu(
        given["x"], groups, given["weight"], given["bias"], EPS, **keywords, **settings
    )


def definition(given: dict[str, Tensor], groups: int, silu: bool) -> Tensor:
    """Written out, in float64."""
    x = given["x"]
    h = x + given["offset"][:, :, None, None] if "offset" in given else x
    rows = h.reshape(len(x), groups, math.prod(x.shape[1:]) // groups)
    centred = rows - rows.mean(2, keepdim=True)
    n = (centred / (centred.square().mean(2, keepdim=True) + EPS).sqrt()).reshape(x.shape)
    n = n * given["weight"][:, None, None] + given["bias"][:, None, None]
    if "scale" in given:
        n = n * (1 + given["scale"][:, :, None, None]) + given["shift"][:, :, None, None]
    return n / (1 + (-n).exp()) if silu else n


@every_isa
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "groups"), SHAPES, ids=str)
def test_value_and_gradients(
    device: str,
    backend: str,
    shape: tuple[int, ...],
    groups: int,
    mode: str,
    dtype: torch.dtype,
) -> None:
    row = next(row for row in ROOM.BACKENDS if row.name == backend)
    served = 0
    for layout in LAYOUTS:
        for silu in (True, False):
            given = operands(shape, mode, device, dtype, layout)
            args = (given["x"], groups, given["weight"], given["bias"], EPS, None, None, None, silu)
            if row.reasons("group_norm_silu", *args):
                continue
            served += 1
            with poisoned_memory():
                y = call(given, groups, silu=silu, backend=backend)
                upstream = torch.linspace(-1, 2, y.numel(), device=device).reshape(y.shape)
                grads = torch.autograd.grad(y, list(given.values()), upstream.to(dtype))
            with torch.no_grad():
                assert torch.equal(call(given, groups, silu=silu, backend=backend), y)
            wide = {k: v.detach().double().requires_grad_() for k, v in given.items()}
            exact = definition(wide, groups, silu)
            upstream = upstream.to(dtype).double()
            exact_grads = torch.autograd.grad(exact, list(wide.values()), upstream)
            budget = 3e-6 if dtype != torch.float64 else 1e-11
            if dtype in (torch.bfloat16, torch.float16):
                budget += torch.finfo(dtype).eps
            assert y.dtype == dtype
            if layout in ("contiguous", "channels_last") and y.numel():
                assert y.stride() == given["x"].stride()
            assert relative_error(y, exact) <= budget
            for name, grad, expected in zip(given, grads, exact_grads, strict=True):
                assert grad.dtype == given[name].dtype, name
                # One pixel and one channel a group has no deviation: its gradient is rounding.
                scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
                error = (grad.double() - expected).abs().max().item() if grad.numel() else 0.0
                assert error <= budget * scale * 4, (name, layout, silu)
    assert served or (backend, dtype) == ("native", torch.float64)


@pytest.mark.parametrize("need", ["x", "weight", "bias", "offset"])
def test_one_gradient_alone_is_the_same(device: str, backend: str, need: str) -> None:
    given = operands((3, 16, 4, 4), "offset", device)
    everything = torch.autograd.grad(
        call(given, 4, backend=backend).square().sum(), list(given.values())
    )
    alone = {k: v.detach().requires_grad_(k == need) for k, v in given.items()}
    (grad,) = torch.autograd.grad(call(alone, 4, backend=backend).square().sum(), [alone[need]])
    assert torch.equal(grad, dict(zip(given, everything, strict=True))[need])


@pytest.mark.skipif(bool(native.reasons()), reason="; ".join(native.reasons()))
def test_bits_do_not_depend_on_instruction_set_threads_or_split() -> None:
    before, results = torch.get_num_threads(), []
    given = operands((6, 74, 17, 13), "adaptive", "cpu")
    for isa in native.cpu_library().available_isas():
        with instruction_set(isa):
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                y = call(given, 2, backend="native")
                grads = torch.autograd.grad(y.square().sum(), list(given.values()))
                results.append([y.detach(), *grads])
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))
    part = {k: v if v.dim() == 1 else v[2:4] for k, v in given.items()}
    assert torch.equal(call(part, 2, backend="native"), results[0][0][2:4])


def test_extreme_inputs_saturate(device: str, backend: str) -> None:
    x = torch.zeros(1, 4, 2, 2, device=device).to(memory_format=torch.channels_last)
    weight = torch.ones(4, device=device)
    bias = torch.tensor([-1e4, -50.0, 50.0, 1e4], device=device)
    y = group_norm_silu(x, 4, weight, bias, EPS, backend=backend)
    assert torch.allclose(y[0, :, 0, 0], F.silu(bias), atol=1e-19)
    x[0, 0, 0, 0] = torch.nan
    assert group_norm_silu(x, 4, weight, bias, EPS, backend=backend)[0, 0].isnan().all()


def test_one_graph_and_operator_checks(device: str, backend: str) -> None:
    given = operands((2, 8, 4, 4), "offset", device)
    eager = call(given, 2, backend=backend)
    compiled = torch.compile(lambda g: call(g, 2, backend=backend), fullgraph=True)(given)
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(y.square().sum(), list(given.values())) for y in (eager, compiled)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)
    if backend != "reference":
        plain = [v.detach() for v in given.values()]
        args = (plain[0], 2, *plain[1:3], EPS, plain[3], None, None, True, backend)
        torch.library.opcheck(torch.ops.sidfast._group_norm_silu.default, args)


def test_second_derivative_is_refused_except_by_the_reference(device: str) -> None:
    given = operands((2, 8, 4, 4), "plain", device)
    y = call(given, 2, backend="reference")
    (grad,) = torch.autograd.grad(y.sum(), [given["x"]], create_graph=True)
    assert grad.requires_grad
    if device == "cpu" and not native.reasons():
        y = call(given, 2, backend="native")
        with pytest.raises(InputError, match="create_graph"):
            torch.autograd.grad(y.sum(), [given["x"]], create_graph=True)


def test_bad_input() -> None:
    given = operands((2, 8, 4, 4), "adaptive", "cpu")
    with pytest.raises(InputError, match="divisible by num_groups = 3"):
        call(given, 3)
    with pytest.raises(InputError, match=r"weight of shape \(8,\)"):
        call({**given, "weight": torch.ones(7)}, 2)
    with pytest.raises(InputError, match=r"scale of shape \(2, 8\)"):
        call({**given, "scale": torch.ones(1, 8)}, 2)
    with pytest.raises(InputError, match="scale and shift together"):
        call({k: v for k, v in given.items() if k != "shift"}, 2)
    with pytest.raises(InputError, match="float32"):
        call({**given, "x": torch.ones(2, 8, 4, 4, dtype=torch.int64)}, 2)
    if not native.reasons():
        with pytest.raises(BackendError, match="channels_last"):
            call({**given, "x": torch.ones(2, 8, 4, 4)}, 2, backend="native")
