"""Calls on a GPU: captured, on the current stream and device, without waiting, in few launches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sidfast.ops import adam_ema
from sidfast.optim import AdamEMA
from sidfast.testing.backends import skip_unless_served
from sidfast.testing.operators import BACKENDS, OPERATORS, Inputs, adam_steps, served

every_call = pytest.mark.parametrize(
    ("name", "backend"), [(name, backend) for backend in BACKENDS for name in OPERATORS]
)


def assert_same(made: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(made, expected, strict=True):
        assert torch.equal(a, b)


@every_call
def test_a_captured_graph_replays_with_what_its_inputs_hold_by_then(
    name: str, backend: str
) -> None:
    operator, inputs = served(name, backend), Inputs.make(1, "cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        operator.results(inputs, backend)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = operator.results(inputs, backend)
    seen = []
    for number in (2, 3):
        inputs.take(Inputs.make(number, "cuda"))
        for result in captured:
            result.fill_(-1)
        graph.replay()
        assert_same(captured, operator.results(inputs, backend))
        seen.append(captured[0].clone())
    assert not torch.equal(*seen)


@every_call
def test_nothing_waits_for_the_device(name: str, backend: str) -> None:
    operator, inputs = served(name, backend), Inputs.make(1, "cuda")
    operator.results(inputs, backend)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        operator.results(inputs, backend)
        operator.results(inputs._replace(seed=7), backend)  # goes to the device as a number
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_call
def test_the_current_stream_is_used(name: str, backend: str) -> None:
    operator, source = served(name, backend), Inputs.make(1, "cuda")
    expected = operator.results(source, backend)
    late = Inputs.make(2, "cuda")
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # cycles until the inputs are there
        late.take(source)
        made = operator.results(late, backend)
    side.synchronize()
    assert_same(made, expected)


@every_call
def test_the_tensors_device_is_used_whatever_the_current_one(name: str, backend: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("torch finds one CUDA device")
    operator, inputs = served(name, backend), Inputs.make(1, "cuda:1")
    made = operator.results(inputs, backend)
    with torch.cuda.device(1):
        assert_same(made, operator.results(inputs, backend))
    assert torch.cuda.current_device() == 0


@every_call
def test_bits_are_the_same_every_time(name: str, backend: str) -> None:
    operator, inputs = served(name, backend), Inputs.make(1, "cuda", shape=(40, 3, 64, 64))
    expected = operator.results(inputs, backend)
    for _ in range(3):
        assert_same(operator.results(inputs, backend), expected)


@every_call
@pytest.mark.parametrize("shape", [(64, 3, 64, 64), (4, 16, 128, 128)], ids=str)
@pytest.mark.parametrize("gradient", [False, True])
def test_a_call_is_at_most_two_launches(
    name: str, backend: str, shape: tuple[int, ...], gradient: bool
) -> None:
    operator, inputs = served(name, backend), Inputs.make(1, "cuda", shape=shape)

    def forward() -> None:
        with torch.set_grad_enabled(gradient):
            operator.forward(inputs, backend)
        torch.cuda.synchronize()

    forward()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        forward()
    kernels = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    assert 1 <= len(kernels) <= 2, [kernel.name for kernel in kernels]


@pytest.mark.parametrize("backend", [*BACKENDS, "torch"])
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_the_optimizer_agrees_with_its_definition(backend: str, beta1: float) -> None:
    skip_unless_served(
        adam_ema, backend, "adam_ema", *adam_ema.contract.plain_calls("cuda")["adam_ema"]
    )
    made, exact = adam_steps("cuda", backend, beta1), adam_steps("cpu", "reference", beta1)
    for ours, theirs in zip(made, exact, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)


@pytest.mark.parametrize("backend", [*BACKENDS, "torch"])
def test_no_step_of_the_optimizer_waits(backend: str) -> None:
    skip_unless_served(
        adam_ema, backend, "adam_ema", *adam_ema.contract.plain_calls("cuda")["adam_ema"]
    )
    params = [torch.randn(n, device="cuda", requires_grad=True) for n in (5, 1000, 77_777)]
    ema = [torch.zeros_like(p) for p in params]
    optimizer = AdamEMA(params, ema=ema, backend=backend)

    def step() -> None:
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step(ema_beta=0.9)

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert optimizer.skipped.item() == 0
