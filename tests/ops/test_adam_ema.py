"""The optimizer's step against its definition in float64, its skip flag, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sidfast.base import native
from sidfast.base.errors import BackendError, InputError
from sidfast.ops import adam_ema as room
from sidfast.ops.adam_ema import Operands, Settings, adam_ema
from sidfast.testing.backends import instruction_set
from sidfast.testing.tensors import relative_error

ROOM = room
every_isa = pytest.mark.usefixtures("every_isa")

# Sizes that no vector, unit or thread divides; nothing at all; one longer than a unit.
SHAPES = ((), (3, 5), (7,), (0, 4), (8, 3, 3, 3), (1,), (129, 67), (16, 16), (33, 1031))
SETTINGS = {
    "adam": Settings(1e-2, (0.9, 0.99), 1e-8, ema_beta=0.7),
    "no first moment": Settings(1e-2, (0.0, 0.999), 1e-8, ema_beta=0.999),
    "L2": Settings(1e-2, (0.5, 0.99), 1e-6, weight_decay=0.1, ema_beta=0.2),
    "L2, no first moment": Settings(1e-2, (0.0, 0.99), 1e-6, weight_decay=0.1, ema_beta=0.2),
    "AdamW": Settings(1e-2, (0.9, 0.99), 1e-8, weight_decay=0.1, decoupled=True, ema_beta=0.5),
}


def tensors(seed: int, device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(shape, generator=generator) for shape in SHAPES]
    drawn[4] = drawn[4].contiguous(memory_format=torch.channels_last)
    return [each.to(device, dtype) for each in drawn]


def operands(
    device: str,
    settings: Settings,
    dtype: torch.dtype = torch.float32,
    copies: torch.dtype | None = None,
) -> Operands:
    params = tensors(0, device, dtype)
    return Operands(
        params,
        [torch.zeros_like(p) for p in params] if settings.betas[0] else None,
        [torch.zeros_like(p) for p in params],
        [torch.zeros((), device=device) for _ in params],
        [each.clone() for each in tensors(1, device, dtype)],
        None if copies is None else [torch.zeros_like(p, dtype=copies) for p in params],
        torch.zeros((), dtype=torch.int64, device=device),
    )


def flat(given: Operands) -> list[Tensor]:
    columns: list[Sequence[Tensor | None]] = [column for column in given[:-1] if column is not None]
    return [each for each in itertools.chain(*columns) if each is not None]


def clones(given: Operands) -> list[Tensor]:
    return [each.clone() for each in flat(given)]


def gradients(step: int, device: str, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
    """Small and large ones; none for one parameter in the second step."""
    grads: list[Tensor | None] = [
        each * 10.0 ** (i % 5 - 2) for i, each in enumerate(tensors(10 + step, device, dtype))
    ]
    if step == 1:
        grads[1] = None
    return grads


@every_isa
@pytest.mark.parametrize("name", SETTINGS)
def test_is_the_definition(device: str, backend: str, name: str) -> None:
    settings = SETTINGS[name]
    ours = operands(device, settings, copies=torch.bfloat16)
    exact = operands(device, settings, torch.float64)
    update, define = adam_ema(ours, backend), adam_ema(exact, "reference")
    for step in range(4):
        grads = gradients(step, device)
        update([None if g is None else g.clone() for g in grads], settings)
        define([None if g is None else g.double() for g in grads], settings)
    for column in ("params", "exp_avgs", "exp_avg_sqs", "ema"):
        if getattr(ours, column) is not None:
            for a, b in zip(getattr(ours, column), getattr(exact, column), strict=True):
                assert relative_error(a, b) <= 1e-6, column
    for step, param, updates in zip(ours.steps, ours.params, (4, 3, *[4] * 7), strict=True):
        assert step == updates or param.numel() == 0
    for copy, param in zip(ours.copies, ours.params, strict=True):
        assert torch.equal(copy, param.to(torch.bfloat16))
    assert ours.skipped == 0


@every_isa
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_skip_is_bit_identical(device: str, backend: str, bad: float) -> None:
    settings = SETTINGS["adam"]
    given = operands(device, settings, copies=torch.float16)
    update = adam_ema(given, backend)
    update(gradients(0, device), settings)
    before = clones(given)
    for i, each in enumerate(SHAPES):
        if 0 in each:
            continue
        for position in (0, -1):
            grads = tensors(2, device)
            spoiled = grads[i].flatten()
            spoiled[position] = bad
            grads[i] = spoiled.view(each)
            update(grads, settings)
            assert all(map(torch.equal, flat(given), before)), each
    assert given.skipped == 2 * (len(SHAPES) - 1)
    update(gradients(2, device), settings)
    assert not torch.equal(given.params[1], before[1])


@every_isa
def test_clamp_cleans_the_gradients(device: str, backend: str) -> None:
    settings = SETTINGS["no first moment"]._replace(clamp=True)
    ours, theirs = operands(device, settings), operands(device, settings)
    grads = tensors(2, device)
    grads[-1][3, 1000:1003] = torch.tensor([torch.nan, torch.inf, -torch.inf], device=device)
    cleaned = [torch.nan_to_num(g, nan=0.0, posinf=1e5, neginf=-1e5) for g in grads]
    adam_ema(ours, backend)(grads, settings)
    assert all(map(torch.equal, grads, cleaned))
    adam_ema(theirs, backend)(cleaned, settings)
    assert all(map(torch.equal, flat(ours), flat(theirs)))
    assert ours.skipped == 0


@every_isa
def test_average_copies_at_0_and_keeps_at_1(device: str, backend: str) -> None:
    settings = SETTINGS["adam"]
    given = operands(device, settings)
    update = adam_ema(given, backend)
    update(gradients(0, device), settings._replace(ema_beta=0.0))
    assert all(map(torch.equal, given.ema, given.params))
    before = [each.clone() for each in given.ema]
    update(gradients(0, device), settings._replace(ema_beta=1.0))
    assert all(map(torch.equal, given.ema, before))
    assert not torch.equal(given.params[1], before[1])


def test_numbers_may_be_tensors(device: str, backend: str) -> None:
    settings = SETTINGS["adam"]
    ours, theirs = operands(device, settings), operands(device, settings)
    adam_ema(theirs, backend)(gradients(0, device), settings)
    lr, beta = torch.tensor(settings.lr, device=device), torch.tensor(0.7, device=device)
    adam_ema(ours, backend)(gradients(0, device), settings._replace(lr=lr, ema_beta=beta))
    for a, b in zip(flat(ours), flat(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_gradients_of_other_strides_and_moved_parameters(device: str, backend: str) -> None:
    settings = SETTINGS["adam"]
    ours, theirs = operands(device, settings), operands(device, settings)
    update, other = adam_ema(ours, backend), adam_ema(theirs, backend)
    for step in range(2):
        grads = tensors(3 + step, device)
        other(grads, settings)
        grads[4] = grads[4].contiguous()
        grads[6] = grads[6].t().contiguous().t()
        update(grads, settings)
        ours.params[6].data = ours.params[6].data.clone()
    assert all(map(torch.equal, flat(ours), flat(theirs)))


def test_in_place_writes_are_seen_by_autograd(backend: str, device: str) -> None:
    settings = SETTINGS["adam"]
    given = operands(device, settings)
    given.params[1].requires_grad_()
    loss = (given.params[1] ** 2).sum()
    with torch.no_grad():
        adam_ema(given, backend)(gradients(0, device), settings)
    with pytest.raises(RuntimeError, match="inplace operation"):
        loss.backward()


def test_refuses_what_does_not_belong_together(device: str) -> None:
    settings = SETTINGS["adam"]
    given = operands(device, settings)
    grads = gradients(0, device)

    def refused(match: str, changed: Operands, **settings_changed: Any) -> None:
        with pytest.raises(InputError, match=match):
            adam_ema(changed)(grads, settings._replace(**settings_changed))

    refused("entry for each", given._replace(ema=given.ema[1:]))
    refused("shape", given._replace(ema=given.ema[::-1]))
    refused("steps", given._replace(steps=[step.double() for step in given.steps]))
    refused("copies", given._replace(copies=given.params))
    refused("exp_avgs", given._replace(exp_avgs=None))
    refused("moments of parameter 0", given._replace(exp_avg_sqs=[None, *given.exp_avg_sqs[1:]]))
    update = adam_ema(given)
    for wrong in (grads[1:], grads[::-1], [g.double() for g in grads]):
        with pytest.raises(InputError):
            update(wrong, settings)


def test_native_says_every_reason() -> None:
    if native.reasons():
        pytest.skip("; ".join(native.reasons()))
    given = operands("cpu", SETTINGS["adam"])
    gaps = [torch.stack((p, p), dim=-1)[..., 0] for p in given.params]
    with pytest.raises(BackendError, match=r"in torch\.float64.*dense.*torch: can serve"):
        adam_ema(given._replace(ema=[each.double() for each in gaps]), "native")
    update = adam_ema(given, "native")
    given.params[6].data = gaps[6]
    with pytest.raises(BackendError, match="dense"):
        update(gradients(0, "cpu"), SETTINGS["adam"])


def test_bits_do_not_depend_on_instruction_set_or_threads() -> None:
    if native.reasons():
        pytest.skip("; ".join(native.reasons()))
    before = torch.get_num_threads()
    settings = SETTINGS["AdamW"]
    results = []
    generator = torch.Generator().manual_seed(0)
    large = [torch.randn(700_001, generator=generator) for _ in range(2)]
    try:
        for isa in native.cpu_library().available_isas():
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                with instruction_set(isa):
                    given = operands("cpu", settings, copies=torch.float16)
                    for column in (given.params, given.ema):
                        column.append(large[0].clone())
                    for column in (given.exp_avgs, given.exp_avg_sqs):
                        column.append(torch.zeros_like(large[0]))
                    given.steps.append(torch.zeros(()))
                    given.copies.append(torch.zeros_like(large[0], dtype=torch.float16))
                    update = adam_ema(given, "native")
                    for step in range(2):
                        update([*gradients(step, "cpu"), large[1]], settings)
                    results.append(flat(given))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))
