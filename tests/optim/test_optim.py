"""AdamEMA against torch's Adam and the plain average, its skip flag and its state dict."""

from __future__ import annotations

import copy

import pytest
import torch

from sidfast.base import graphs
from sidfast.base.errors import InputError
from sidfast.ops import adam_ema as room
from sidfast.optim import AdamEMA, ema_beta
from sidfast.testing.backends import skip_unless_served


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 5), (7,), (), (2, 3, 4)]
    return [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]


def set_gradients(params: list[torch.nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("betas", [(0, 0.999), (0.9, 0.99)])
def test_matches_adam_and_the_plain_average(betas) -> None:
    ours, theirs = parameters(), parameters()
    average = [p.detach().clone() for p in ours]
    plain = [p.detach().clone() for p in ours]
    optimizer = AdamEMA(ours, 1e-2, betas, 1e-8, ema=average)
    reference = torch.optim.Adam(theirs, 1e-2, (float(betas[0]), betas[1]), 1e-8, foreach=False)
    for i, beta in enumerate([0.0, 0.3, 0.9, 0.999]):
        set_gradients(ours, i), set_gradients(theirs, i)
        optimizer.step(ema_beta=beta), reference.step()
        with torch.no_grad():
            plain = [p.lerp(e, beta) for p, e in zip(theirs, plain, strict=True)]
        for p, q, e, f in zip(ours, theirs, average, plain, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(e, f.detach(), rtol=1e-5, atol=1e-6)
    assert optimizer.skipped.item() == 0


@pytest.mark.parametrize("decoupled", [False, True])
def test_weight_decay_is_adams_and_adamws(decoupled: bool) -> None:
    ours, theirs = parameters(), parameters()
    optimizer = AdamEMA(ours, 1e-2, weight_decay=0.1, decoupled_weight_decay=decoupled)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    reference = kind(theirs, 1e-2, weight_decay=0.1)
    for i in range(4):
        set_gradients(ours, i), set_gradients(theirs, i)
        optimizer.step(), reference.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.9, 0.99)])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("fused", [False, True])
def test_state_dict_is_adams_both_ways(kind, betas, fused: bool) -> None:
    """Whoever goes on, the next two steps are the same."""

    def make(ours: bool) -> torch.optim.Optimizer:
        params = parameters()
        if ours:
            decoupled = kind is torch.optim.AdamW
            return AdamEMA(params, 1e-2, betas, 1e-8, 0.1, decoupled_weight_decay=decoupled)
        return kind(params, 1e-2, betas, 1e-8, 0.1, fused=fused)

    def steps(optimizer: torch.optim.Optimizer, start: int) -> list[torch.Tensor]:
        params = optimizer.param_groups[0]["params"]
        for i in range(start, start + 2):
            set_gradients(params, i)
            params[0].grad = None
            optimizer.step()
        return params

    ended = []
    for first in (True, False):
        for second in (True, False):
            one, two = make(first), make(second)
            done = steps(one, 0)
            state = one.state_dict()
            for each in state["state"].values():
                assert list(each) == ["step", "exp_avg", "exp_avg_sq"]
            two.load_state_dict(copy.deepcopy(state))
            with torch.no_grad():
                for p, q in zip(two.param_groups[0]["params"], done, strict=True):
                    p.copy_(q)
            ended.append(steps(two, 2))
    for params in ended[1:]:
        for p, q in zip(params, ended[0], strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.9, 0.99)])
def test_resumes_to_the_bit_from_a_contiguous_copy(betas) -> None:
    """A checkpoint stores tensors contiguously, whatever the parameters' memory format."""

    def last(params: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
        image = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(9))
        return [*params, torch.nn.Parameter(image.contiguous(memory_format=torch.channels_last))]

    whole, cut = last(parameters()), last(parameters())
    unbroken, before = AdamEMA(whole, 1e-2, betas), AdamEMA(cut, 1e-2, betas)
    for i in range(2):
        set_gradients(whole, i), set_gradients(cut, i)
        unbroken.step(), before.step()
    state = before.state_dict()
    for each in state["state"].values():
        each.update({name: value.clone().contiguous() for name, value in each.items()})
    after = AdamEMA(cut, 1e-3, (0.5, 0.5))
    after.load_state_dict(state)
    for i in range(2, 4):
        set_gradients(whole, i), set_gradients(cut, i)
        unbroken.step(), after.step()
    assert all(map(torch.equal, cut, whole))


def test_without_beta1_no_first_moment_is_kept() -> None:
    params = parameters()
    optimizer = AdamEMA(params, 1e-2, (0.0, 0.99))
    set_gradients(params, 0)
    optimizer.step()
    assert all(set(state) == {"step", "exp_avg_sq"} for state in optimizer.state.values())
    optimizer.param_groups[0]["betas"] = (0.9, 0.99)
    optimizer.step()
    assert all("exp_avg" in state for state in optimizer.state.values())


def test_copies_follow_the_parameters() -> None:
    params = parameters()
    copies = [torch.zeros_like(p, dtype=torch.bfloat16, requires_grad=False) for p in params]
    optimizer = AdamEMA(params, 1e-2, copies=copies)
    set_gradients(params, 0)
    optimizer.step()
    for copied, p in zip(copies, params, strict=True):
        assert torch.equal(copied, p.detach().to(torch.bfloat16))


def test_a_parameter_without_gradient_is_averaged_only() -> None:
    params = parameters()
    before = params[1].detach().clone()
    average = [torch.zeros_like(p) for p in params]
    optimizer = AdamEMA(params, 1e-2, ema=average)
    set_gradients(params, 0)
    params[1].grad = None
    optimizer.step(ema_beta=0.5)
    assert torch.equal(params[1], before) and params[1] not in optimizer.state
    torch.testing.assert_close(average[1], before / 2)
    set_gradients(params, 1)
    optimizer.step(ema_beta=0.5)
    assert optimizer.state[params[1]]["step"] == 1 and optimizer.state[params[0]]["step"] == 2


def test_grad_scaler_unscales_before_the_step() -> None:
    ours, theirs = parameters(), parameters()
    optimizer, plain = AdamEMA(ours, 1e-2, eps=1.0), AdamEMA(theirs, 1e-2, eps=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))
    set_gradients(ours, 0), set_gradients(theirs, 0)
    for p in ours:
        p.grad *= 1024
    scaler.step(optimizer), plain.step()
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_skip_is_bit_identical(bad: float) -> None:
    params = parameters()
    average = [p.detach().clone() for p in params]
    optimizer = AdamEMA(params, 1e-2, (0.9, 0.99), ema=average)
    set_gradients(params, 0)
    optimizer.step(ema_beta=0.5)
    before = copy.deepcopy([list(params), average, optimizer.state_dict()["state"]])
    set_gradients(params, 1)
    params[3].grad[1, 2, 3] = bad
    optimizer.step(ema_beta=0.5)
    assert optimizer.skipped.item() == 1
    for now, then in zip([*params, *average], [*before[0], *before[1]], strict=True):
        assert torch.equal(now, then)
    for i, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(value, before[2][i][name]), name
    set_gradients(params, 2)
    optimizer.step(ema_beta=0.5)
    assert optimizer.skipped.item() == 1
    assert not torch.equal(params[0], before[0][0])


def test_large_finite_gradients_are_not_skipped() -> None:
    """A sum of squares would overflow here; the check must not."""
    params = parameters()
    optimizer = AdamEMA(params, 1e-2)
    for p in params:
        p.grad = torch.full_like(p, 1e38)
    optimizer.step()
    assert optimizer.skipped.item() == 0


def test_clamp_replaces_non_finite_values() -> None:
    params = parameters()
    optimizer = AdamEMA(params, 1e-2, nonfinite="clamp")
    set_gradients(params, 0)
    params[0].grad[0, 0], params[0].grad[0, 1] = float("nan"), float("inf")
    before = params[0].detach().clone()
    optimizer.step()
    assert params[0].grad[0, 0] == 0 and params[0].grad[0, 1] == 1e5
    assert params[0][0, 0] == before[0, 0] and params[0][0, 1] != before[0, 1]


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="skip"):
        AdamEMA(parameters(), nonfinite="ignore")
    with pytest.raises(InputError, match="same shape"):
        AdamEMA(parameters(), ema=[torch.zeros(2)])
    with pytest.raises(InputError, match="one group"):
        AdamEMA([{"params": parameters()}])
    demanding = torch.optim.Adam(parameters(), amsgrad=True)
    with pytest.raises(InputError, match="amsgrad"):
        AdamEMA(parameters()).load_state_dict(demanding.state_dict())


def test_ema_beta_follows_the_method() -> None:
    assert ema_beta(256, 0, halflife=500_000) == 0.0
    assert ema_beta(256, 10_000, halflife=500_000) == pytest.approx(0.5 ** (256 / 500))
    assert ema_beta(256, 10**9, halflife=500_000) == pytest.approx(0.5 ** (256 / 500_000))
    assert ema_beta(256, 0, halflife=1000, rampup=None) == pytest.approx(0.5**0.256)


def test_capturable_keeps_lr_on_the_device() -> None:
    """Where schedulers write it, whatever a state dict says."""
    ours, theirs = parameters(), parameters()
    optimizer = AdamEMA(ours, 1e-2, (0.9, 0.99), capturable=True)
    plain = torch.optim.Adam(theirs, 1e-2, (0.9, 0.99))
    schedules = [torch.optim.lr_scheduler.StepLR(each, 1, 0.5) for each in (optimizer, plain)]
    lr = optimizer.param_groups[0]["lr"]
    for i in range(3):
        set_gradients(ours, i), set_gradients(theirs, i)
        for each, schedule in zip((optimizer, plain), schedules, strict=True):
            each.step(), schedule.step()
    assert optimizer.param_groups[0]["lr"] is lr and lr.shape == () and lr == 1e-2 / 8
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    group = optimizer.param_groups[0]
    assert group["capturable"] and isinstance(group["lr"], torch.Tensor) and group["lr"] == lr
    plain.load_state_dict(optimizer.state_dict())
    plain.step()


def test_a_graph_needs_capturable_and_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    params = parameters()
    plain, capturable = AdamEMA(params), AdamEMA(params, capturable=True)
    set_gradients(params, 0)
    plain.step()
    monkeypatch.setattr(graphs, "capturing", lambda device: True)
    with pytest.raises(InputError, match="capturable=True"):
        plain.step()
    with pytest.raises(InputError, match="step before the capture"):
        capturable.step()
    assert not capturable.state
    monkeypatch.undo()
    capturable.step()
    monkeypatch.setattr(graphs, "capturing", lambda device: True)
    capturable.step()
    assert all(state["step"] == 2 for state in capturable.state.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backend", ["triton", "cuda", "torch"])
def test_replays_of_a_graph_are_steps(backend: str) -> None:
    """With a learning rate and an average that change, a bad gradient, and a step between."""
    ours = [p.detach().cuda().requires_grad_() for p in parameters()]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    averages = [[p.detach().clone() for p in each] for each in (ours, theirs)]
    skip_unless_served(room, backend, "adam_ema", *room.contract.plain_calls("cuda")["adam_ema"])
    beta, factor = torch.zeros((), device="cuda"), torch.ones((), device="cuda")
    optimizer = AdamEMA(ours, 1e-2, ema=averages[0], capturable=True, backend=backend)
    plain = AdamEMA(theirs, 1e-2, ema=averages[1], backend="reference")

    def backward(params: list[torch.Tensor]) -> None:
        sum((factor * p**2).sum() for p in params).backward()

    def step() -> None:
        optimizer.zero_grad()
        backward(ours)
        optimizer.step(ema_beta=beta)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad()
    with torch.cuda.graph(graph):
        backward(ours)
        optimizer.step(ema_beta=beta)
    captured = [p.grad for p in ours]  # keeps them from being handed out again
    for i, scale in enumerate((1.0, 2.0, 3.0, float("nan"), 4.0)):
        beta.fill_(0.1 * i), factor.fill_(scale)
        optimizer.param_groups[0]["lr"].fill_(1e-2 / (1 + i))
        plain.param_groups[0]["lr"] = 1e-2 / (1 + i)
        if i == 2:
            step()
        elif i > 0:
            graph.replay()
        plain.zero_grad()
        backward(theirs)
        plain.step(ema_beta=0.1 * i)
        for p, q in zip([*ours, *averages[0]], [*theirs, *averages[1]], strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    assert optimizer.skipped == 1 and len(captured) == len(ours)
