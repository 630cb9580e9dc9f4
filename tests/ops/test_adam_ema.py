"""The optimizer's step against its definition in float64, its skip flag, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sidfast.base import cuda, graphs, native
from sidfast.base.errors import BackendError, InputError
from sidfast.ops import adam_ema as room
from sidfast.ops.adam_ema import Operands, Settings, adam_ema
from sidfast.testing.backends import instruction_set
from sidfast.testing.cuda_emulator import emulated
from sidfast.testing.cuda_emulator import missing as no_emulator
from sidfast.testing.tensors import INTERPRETED, relative_error

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
    params[6].zero_()  # where the update alone is seen
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
    places = [(i, j) for i, each in enumerate(SHAPES) if 0 not in each for j in (0, -1)]
    if INTERPRETED:
        places = places[-1:] if bad < 0 else places[::5]
    for i, position in places:
        grads = tensors(2, device)
        spoiled = grads[i].flatten()
        spoiled[position] = bad
        grads[i] = spoiled.view(SHAPES[i])
        update(grads, settings)
        assert all(map(torch.equal, flat(given), before)), SHAPES[i]
    assert given.skipped == len(places)
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


def test_parameters_in_one_buffer(device: str, backend: str) -> None:
    """Whose addresses suit no wide access."""
    settings = SETTINGS["AdamW"]

    def packed(column: list[Tensor]) -> list[Tensor]:
        whole = torch.cat([column[0].new_zeros(1), *(each.flatten() for each in column)])
        pieces = whole[1:].split([each.numel() for each in column])
        return [piece.view_as(each) for piece, each in zip(pieces, column, strict=True)]

    ours, theirs = (operands(device, settings, copies=torch.bfloat16) for _ in range(2))
    plain = [getattr(theirs, name) for name in theirs._fields[:-1]]
    for column in plain:  # a buffer has one order of elements
        column[:] = [each.contiguous() for each in column]
    ours = Operands(*map(packed, plain), ours.skipped)
    grads = [each.contiguous() for each in tensors(2, device)]
    adam_ema(theirs, backend)(grads, settings)
    adam_ema(ours, backend)(packed(grads), settings)
    assert all(map(torch.equal, flat(ours), flat(theirs)))


def test_many_parameters(device: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a block counts and than there are blocks to look for what is not finite."""
    count = 1100
    if INTERPRETED:
        from triton.language import constexpr

        from sidfast.ops.adam_ema import _triton

        count = 6
        monkeypatch.setattr(_triton, "_COUNTED", 4)
        monkeypatch.setattr(_triton, "_READERS", constexpr(4))
    settings = SETTINGS["no first moment"]
    params = [torch.full((1 + i % 3,), float(i), device=device) for i in range(count)]
    grads = [torch.ones_like(p) for p in params]
    seconds = [torch.zeros_like(p) for p in params]
    steps = [torch.zeros((), device=device) for _ in params]
    skipped = torch.zeros((), dtype=torch.int64, device=device)
    update = adam_ema(Operands(params, None, seconds, steps, None, None, skipped), backend)
    before = [p.clone() for p in params]
    update(grads, settings)
    assert all(step == 1 for step in steps)
    for p, old in zip(params, before, strict=True):
        torch.testing.assert_close(p, old - settings.lr)
    before = [p.clone() for p in params]
    grads[-1][-1] = torch.nan
    update(grads, settings)
    assert skipped == 1 and all(map(torch.equal, params, before))
    assert all(step == 1 for step in steps)


def test_no_elements_and_no_parameters(device: str, backend: str) -> None:
    nothing = torch.zeros(0, 3, device=device)
    skipped = torch.zeros((), dtype=torch.int64, device=device)
    step = torch.zeros((), device=device)
    for column, steps in (([nothing], [step]), ([], [])):
        given = Operands(column, column, column, steps, column, None, skipped)
        adam_ema(given, backend)(column, SETTINGS["adam"])
    assert skipped == 0


class NoValues(TorchDispatchMode):
    """Refuses to tell the host a tensor's value, for which it would wait on a GPU."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was asked for"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("clamp", [False, True])
def test_gpu_back_ends_wait_for_nothing(device: str, backend: str, clamp: bool) -> None:
    if backend not in ("triton", "cuda"):
        pytest.skip("not of a GPU")
    numbers = {"lr": torch.tensor(1e-2, device=device), "ema_beta": torch.tensor(0.5).to(device)}
    settings = SETTINGS["AdamW"]._replace(clamp=clamp, **numbers)
    given = operands(device, settings, copies=torch.bfloat16)
    update = adam_ema(given, backend)
    steps = [gradients(step, device) for step in range(2)]
    steps[1][0].fill_(torch.nan)
    with NoValues():
        for grads in steps:
            update(grads, settings)
    assert given.skipped == (0 if clamp else 1)


class Graph:
    """Stands for a CUDA graph: keeps a launch and the copy of its table instead of making them."""

    def __init__(self, update: Any, grads: Sequence[Tensor | None], settings: Settings) -> None:
        self.library = cuda.library()
        with (
            mock.patch.object(cuda, "library", lambda: self),
            mock.patch.object(graphs, "capturing", lambda device: True),
        ):
            update(grads, settings)
        *_, self.source, self.table = update._run._tables.captured
        self.source = self.source.clone()

    def adam_ema(self, *call: Any) -> None:
        self.call = call

    def replay(self) -> None:
        self.table.copy_(self.source)
        self.library.adam_ema(*self.call)


def test_graphs_keep_their_gradients() -> None:
    """Where steps with others come between, and other graphs."""
    if no_emulator():
        pytest.skip(no_emulator())
    settings = SETTINGS["adam"]
    ours, theirs = operands("cpu", settings), operands("cpu", settings)
    grads = [gradients(i, "cpu") for i in range(4)]
    with emulated():
        update, define = adam_ema(ours, "cuda"), adam_ema(theirs, "cuda")
        update(grads[0], settings)
        captured = [Graph(update, grads[i], settings) for i in (0, 2, 3)]
        update(grads[1], settings)
        for graph in captured:
            graph.replay()
        update(grads[1], settings)
        captured[0].replay()
        for i in (0, 1, 0, 2, 3, 1, 0):
            define(grads[i], settings)
        with pytest.raises(InputError, match="before a CUDA graph"):
            ours.params[1].data = ours.params[1].data.clone()
            Graph(update, grads[0], settings)
    assert all(map(torch.equal, flat(ours), flat(theirs)))


@pytest.mark.parametrize("name", SETTINGS)
def test_cuda_bits_are_those_of_a_cpu(name: str) -> None:
    for missing in (no_emulator(), *native.reasons()):
        if missing:
            pytest.skip(missing)
    settings = SETTINGS[name]
    ends = []
    for backend in ("native", "cuda"):
        with emulated():
            given = operands("cpu", settings, copies=torch.float16)
            update = adam_ema(given, backend)
            for step in range(3):
                update(gradients(step, "cpu"), settings)
        ends.append(flat(given))
    assert all(map(torch.equal, *ends))


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


def test_cuda_says_every_reason() -> None:
    if no_emulator():
        pytest.skip(no_emulator())
    given = operands("cpu", SETTINGS["adam"], torch.float64)
    gaps = [torch.stack((p, p), dim=-1)[..., 0] for p in given.params]
    with emulated(), pytest.raises(BackendError, match=r"cuda: .*in torch\.float64, .*dense"):
        adam_ema(given._replace(ema=gaps), "cuda")


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
