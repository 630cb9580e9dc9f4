"""Calls that go past torch's dispatcher, and those that must not: somebody would miss them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sidfast.base.backends import Backend, choose
from sidfast.base.errors import BackendError, InputError
from sidfast.ops import (
    add_noise,
    dropout,
    dsm_loss,
    dsm_loss_raw,
    integers,
    normal,
    sid_loss,
    sid_loss_raw,
    uniform,
    vsd_loss,
)

SIGMA, INDEX = torch.rand(2) + 0.1, torch.arange(2)
KEY: dict[str, Any] = {"seed": 3, "index": INDEX}

# Name of the operator that a mode sees -> the call on an image batch.
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "_sid_loss": lambda x: sid_loss(x, x + 1, x * 2),
    "_dsm_loss": lambda x: dsm_loss(x, x + 1, SIGMA),
    "_vsd_loss": lambda x: vsd_loss(x, x.detach() + 1, x.detach() * 2),
    "_sid_loss_raw": lambda x: sid_loss_raw(x, x + 1, x * 2, SIGMA, SIGMA, SIGMA, **KEY),
    "_dsm_loss_raw": lambda x: dsm_loss_raw(x, x + 1, SIGMA, SIGMA, SIGMA, noisy=x * 2),
    "_add_noise": lambda x: add_noise(x, SIGMA, **KEY),
    "_dropout": lambda x: dropout(x, 0.3, **KEY),
    "normal": lambda x: normal(x.shape, **KEY),
    "uniform": lambda x: uniform(x.shape, **KEY),
    "integers": lambda x: integers(x.shape, 10, **KEY),
}
WITH_GRADIENT = {
    "_sid_loss_grads": CALLS["_sid_loss"],
    "_dsm_loss_grad": CALLS["_dsm_loss"],
    "_vsd_loss_grad": CALLS["_vsd_loss"],
    "_sid_loss_raw_grads": CALLS["_sid_loss_raw"],
    "_dsm_loss_raw_grad": CALLS["_dsm_loss_raw"],
    "_add_noise": CALLS["_add_noise"],
    "_dropout": CALLS["_dropout"],
}


def batch() -> Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)


class SeenByDispatch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, op: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(str(op))
        return op(*args, **(kwargs or {}))


class SeenByFunction(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [SeenByDispatch, SeenByFunction])
@pytest.mark.parametrize("name", CALLS)
def test_a_mode_sees_the_operator(name: str, mode: Callable[[], Any]) -> None:
    expected = CALLS[name](batch())
    with mode() as seen:
        assert torch.equal(CALLS[name](batch()), expected)
    assert f"sidfast.{name}.default" in seen.names


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_a_mode_sees_the_operator_with_gradient(name: str) -> None:
    with SeenByDispatch() as seen:
        WITH_GRADIENT[name](batch().requires_grad_()).sum().backward()
    assert f"sidfast.{name}.default" in seen.names


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_fake_tensors_give_fake_results(name: str, gradient: bool) -> None:
    real = CALLS[name](batch().requires_grad_(gradient))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(batch()).requires_grad_(gradient)
        fake = CALLS[name](x)
    assert type(fake) is not Tensor
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)
    assert fake.requires_grad == real.requires_grad


@pytest.mark.parametrize("name", CALLS)
def test_a_trace_holds_the_operator(name: str) -> None:
    assert f"sidfast.{name}.default" in make_fx(CALLS[name])(batch()).code


@pytest.mark.parametrize(
    "name", ["_sid_loss", "_vsd_loss", "_sid_loss_raw", "_add_noise", "_dropout"]
)
def test_vmap_without_gradient_is_a_loop(name: str) -> None:
    x = torch.stack([batch(), batch() / 2])
    expected = torch.stack([CALLS[name](each) for each in x])
    assert torch.equal(torch.vmap(CALLS[name], randomness="same")(x), expected)


def of_vmap(call: Callable[[Tensor], Tensor], x: Tensor) -> None:
    torch.vmap(call, randomness="same")(x[None].requires_grad_())


def of_jvp(call: Callable[[Tensor], Tensor], x: Tensor) -> None:
    torch.func.jvp(call, (x,), (x,))


def of_func_grad(call: Callable[[Tensor], Tensor], x: Tensor) -> None:
    torch.func.grad(lambda y: call(y).sum())(x)


def of_forward_mode(call: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with torch.autograd.forward_ad.dual_level():
        call(torch.autograd.forward_ad.make_dual(x, x))


@pytest.mark.parametrize("derivative", [of_vmap, of_jvp, of_func_grad, of_forward_mode])
@pytest.mark.parametrize("name", ["_sid_loss", "_dsm_loss", "_add_noise", "_dropout"])
def test_a_derivative_that_would_be_lost_is_refused(
    name: str, derivative: Callable[[Callable[[Tensor], Tensor], Tensor], None]
) -> None:
    with pytest.raises(InputError, match=r"torch\.autograd alone"):
        derivative(CALLS[name], batch())


def test_a_gradient_beside_forward_mode_is_served() -> None:
    x = batch().requires_grad_()
    with torch.autograd.forward_ad.dual_level():
        CALLS["_sid_loss"](x).sum().backward()
    assert x.grad is not None


def test_a_seed_first_used_in_inference_mode_serves_a_gradient_later() -> None:
    key = {**KEY, "seed": 20261123}
    with torch.inference_mode():
        dropout(batch(), 0.3, **key)
    x = batch().requires_grad_()
    dropout(x, 0.3, **key).sum().backward()
    assert x.grad is not None


def test_parameters_are_plain_tensors() -> None:
    x = torch.nn.Parameter(batch())
    assert torch.equal(CALLS["_sid_loss"](x), CALLS["_sid_loss"](batch()))


@pytest.mark.parametrize("name", ["_sid_loss", "_dsm_loss", "_add_noise"])
def test_autocast_changes_nothing(name: str) -> None:
    expected = CALLS[name](batch())
    with torch.autocast("cpu", torch.bfloat16):
        made = CALLS[name](batch())
    assert made.dtype == expected.dtype and torch.equal(made, expected)


def test_the_default_device_does_not_move_results() -> None:
    x = batch()
    with torch.device("meta"):
        assert all(call(x).device.type == "cpu" for call in CALLS.values())


def test_a_back_end_without_the_function_says_so() -> None:
    rows = [Backend("empty", "sidfast.base.errors")]
    assert rows[0].reasons("sid_loss", batch()) == ["has no sid_loss"]
    with pytest.raises(BackendError, match="empty: has no sid_loss"):
        choose("sid_loss", rows, "auto", (batch(),))
