"""AdamEMA against torch's Adam and the plain average, and its skip flag."""

from __future__ import annotations

import copy

import pytest
import torch

from sidfast.base.errors import InputError
from sidfast.optim import AdamEMA, ema_beta


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


def test_state_dict_is_adams_both_ways() -> None:
    ours, theirs = parameters(), parameters()
    optimizer, reference = AdamEMA(ours, 1e-2), torch.optim.Adam(theirs, 1e-2, fused=True)
    set_gradients(ours, 0), set_gradients(theirs, 0)
    optimizer.step(), reference.step()
    one, two = AdamEMA(parameters(), 1e-2), torch.optim.Adam(parameters(), 1e-2, fused=True)
    one.load_state_dict(copy.deepcopy(reference.state_dict()))
    two.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for state in (one.state_dict(), two.state_dict()):
        assert set(state["state"]) == set(range(4))
        assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


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


def test_ema_beta_follows_the_method() -> None:
    assert ema_beta(256, 0, halflife=500_000) == 0.0
    assert ema_beta(256, 10_000, halflife=500_000) == pytest.approx(0.5 ** (256 / 500))
    assert ema_beta(256, 10**9, halflife=500_000) == pytest.approx(0.5 ** (256 / 500_000))
    assert ema_beta(256, 0, halflife=1000, rampup=None) == pytest.approx(0.5**0.256)
