"""Schemas, output shapes and gradients of the score losses.

A back end is a module with `reasons(op, *args) -> list[str]` and any of these functions, whose
positional arguments are those of the opaque operators, but for the last, `backend`:

    sid_loss(images, teacher_x0, fake_x0, alpha, floor) -> (loss, weight)
    sid_loss_grads(..., grad_scale, need)
        -> (loss, weight, grad_images, grad_teacher_x0, grad_fake_x0)
    dsm_loss(images, denoised, sigma, sigma_data) -> (loss, weight)
    dsm_loss_grad(..., grad_scale) -> (loss, weight, grad_denoised)
    vsd_loss(images, teacher_x0, fake_x0, scale, floor, eps) -> (loss, weight)
    vsd_loss_grad(..., grad_scale) -> (loss, weight, grad_images)
    sid_loss_raw(images, teacher_raw, fake_raw, noisy, sigma, seed, index, stream, c_skip, c_out,
        alpha, floor) -> (loss, weight)
    sid_loss_raw_grads(..., grad_scale, need)
        -> (loss, weight, grad_images, grad_teacher_raw, grad_fake_raw, grad_noisy)
    dsm_loss_raw(images, raw, noisy, sigma, seed, index, stream, c_skip, c_out, sigma_data)
        -> (loss, weight)
    dsm_loss_raw_grad(..., grad_scale) -> (loss, weight, grad_raw)
    rescale(upstream, made_for, *grads) -> None

Batches, which come first, are (B, ...) of one shape with any strides, each of its own floating
dtype; `sigma`, `c_skip`, `c_out` and `scale` (which may be None) are (B,) float32. Either `noisy`
is None or the key, `seed`, 0-d int64, and `index`, (B,) int64, whose noise is `add_noise`'s.
Outputs are made by `per_sample_outputs` and `gradients_like`. `need` is one bool for each batch; a
gradient that is not needed has size 0. Gradients are those of the loss times `grad_scale`. A sample
is bad if its loss or its weight is not finite: its loss and gradients are zero, its weight is NaN.

`rescale` is no operator. It multiplies `grads` in place, batches with every sample dense, by
upstream / made_for, `upstream` (B,) float32 with any stride, without waiting for the device; a
sample whose upstream is `made_for` is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sidfast.base.backends import AUTO, Backend, serving
from sidfast.base.batch import spread
from sidfast.base.contract import (
    define_differentiable,
    define_opaque,
    has_storage,
    keeps_graph,
    quick_apply,
    unobserved,
)
from sidfast.base.errors import InputError

ops = SimpleNamespace()  # the room's operators by name, once registered


class Loss(NamedTuple):
    """A loss as its operators' schemas need it.

    Attributes:
        name: of the operator.
        batches: schema of its first arguments, separated by commas.
        constants: schema of the others.
        differentiable: which batches get a gradient.
    """

    name: str
    batches: str
    constants: str
    differentiable: slice

    @property
    def gradients(self) -> list[str]:
        """Names of the batches that get one."""
        names = [batch.split()[-1] for batch in self.batches.split(", ")]
        return names[self.differentiable]

    @property
    def several(self) -> bool:
        """Whether the operator that makes gradients is told which are needed."""
        return len(self.gradients) > 1

    @property
    def name_with_gradient(self) -> str:
        return f"{self.name}_grads" if self.several else f"{self.name}_grad"


_RAW = (
    "Tensor sigma, Tensor? seed, Tensor? index, SymInt stream, Tensor c_skip, Tensor c_out, {}"
).format
_X0 = "Tensor images, Tensor teacher_x0, Tensor fake_x0"
LOSSES = (
    Loss("sid_loss", _X0, "float alpha, float floor", slice(0, 3)),
    Loss(
        "sid_loss_raw",
        "Tensor images, Tensor teacher_raw, Tensor fake_raw, Tensor? noisy",
        _RAW("float alpha, float floor"),
        slice(0, 4),
    ),
    Loss(
        "dsm_loss", "Tensor images, Tensor denoised", "Tensor sigma, float sigma_data", slice(1, 2)
    ),
    Loss(
        "dsm_loss_raw",
        "Tensor images, Tensor raw, Tensor? noisy",
        _RAW("float sigma_data"),
        slice(1, 2),
    ),
    Loss("vsd_loss", _X0, "Tensor? scale, float floor, float eps", slice(0, 1)),
)


# Function of a back end -> which of its arguments are batches.
BATCHES = {
    name: slice(loss.batches.count(",") + 1)
    for loss in LOSSES
    for name in (loss.name, loss.name_with_gradient)
} | {"rescale": slice(2, None)}


def loss_dtype(*batches: Tensor | None) -> torch.dtype:
    """float32, or float64 as soon as one batch is."""
    for batch in batches:
        if batch is not None and batch.dtype == torch.float64:
            return torch.float64
    return torch.float32


def per_sample_outputs(*batches: Tensor | None) -> tuple[Tensor, Tensor]:
    """Empty `loss` and `weight`, (B,) each."""
    first, dtype = batches[0], loss_dtype(*batches)
    assert first is not None
    loss = first.new_empty(first.shape[0], dtype=dtype)
    return loss, torch.empty_like(loss)


def gradient_like(batch: Tensor, need: bool = True) -> Tensor:
    """An empty gradient: a dense batch hands on its own strides; of size 0 if not needed."""
    return torch.empty_like(batch) if need else batch.new_empty(0)


def gradients_like(batches: Sequence[Tensor | None], need: Sequence[bool]) -> list[Tensor]:
    """An empty gradient for each batch; one that was not given, None, needs none."""
    first: Any = batches[0]
    return [
        torch.empty_like(batch)
        if wanted and batch is not None
        else (first if batch is None else batch).new_empty(0)
        for batch, wanted in zip(batches, need, strict=True)
    ]


def row_shape(batch: Tensor | None) -> tuple[int, int]:
    """(samples, elements of each) of a batch that was given."""
    assert batch is not None
    samples = batch.shape[0]
    return samples, batch.numel() // (samples or 1)


def hand_over(made: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
    """Copy gradients from where they were made, unless that is where they belong."""
    if made is not grads:
        for source, grad in zip(made, grads, strict=True):
            grad.copy_(source)


def _fakes(loss: Loss) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Shape functions of the operator and of the one that makes gradients too."""
    given = BATCHES[loss.name]
    where, several = loss.differentiable, loss.several

    def forward(*args: Any) -> tuple[Tensor, Tensor]:
        return per_sample_outputs(*args[given])

    def with_gradient(*args: Any) -> tuple[Tensor, ...]:
        batches = args[given]
        need = args[-2] if several else (True,)
        return *per_sample_outputs(*batches), *gradients_like(batches[where], need)

    return forward, with_gradient


def _with_autograd(
    loss: Loss,
    forward: Callable[..., Any],
    with_gradient: Callable[..., Any],
    backends: Sequence[Backend],
) -> Callable[..., Any]:
    """The loss as a differentiable function of its schema's arguments, `grad_scale`, `backend`.

    To autograd, every argument and result has a price. So it sees the batches, up to the last that
    gets a gradient, and the loss; the whole call goes beside them, and the weight comes back there.
    """
    where, several = loss.differentiable, loss.several
    before = (None,) * where.start

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Tensor:
            args, weights = inputs[-1]
            ctx.need = need = ctx.needs_input_grad[where]
            ctx.grad_scale, ctx.backend = args[-2:]
            ctx.handed_on = False
            chosen = (need,) if several else ()
            value, weight, *grads = with_gradient(*args[:-1], *chosen, args[-1])
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*grads)
            weights.append(weight)
            return value

        @staticmethod
        def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
            return *before, *_rescaled(ctx, upstream, backends), None

    apply = quick_apply(Differentiable)

    def kernel(*args: Any) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            for batch in args[where]:
                if batch is not None and batch.requires_grad:
                    weights: list[Tensor] = []
                    value = apply(*args[: where.stop], (args, weights))
                    return value, weights[0]
        return forward(*args[:-2], args[-1])

    return kernel


def _rescaled(
    ctx: Any, upstream: Tensor | None, backends: Sequence[Backend]
) -> Sequence[Tensor | None]:
    """The needed gradients among the saved ones, for `upstream` (B,) instead of `grad_scale`."""
    if torch.is_grad_enabled():
        raise InputError(
            expected="a first derivative of a score loss, whose gradients the forward pass made",
            got="backward with create_graph=True",
            fix="leave create_graph out, or differentiate sidfast.ops.score_losses.reference",
        )
    need, made_for = ctx.need, ctx.grad_scale
    if upstream is None:
        return [None] * len(need)
    grads: Sequence[Tensor] = ctx.saved_tensors
    if not all(need):
        grads = [grad for grad, needed in zip(grads, need, strict=True) if needed]
    plain = unobserved((upstream, *grads)) and has_storage(upstream)
    if plain and _is_all(upstream, made_for):
        ctx.handed_on = keeps_graph()
    elif plain and (rescale := _in_place_rescale(ctx, backends, upstream, grads)):
        rescale(upstream, made_for, *grads)
    else:
        factor = upstream / made_for
        grads = [(grad * spread(factor, grad)).to(grad.dtype) for grad in grads]
    if all(need):
        return grads
    made = iter(grads)
    return [next(made) if needed else None for needed in need]


def _in_place_rescale(
    ctx: Any, backends: Sequence[Backend], upstream: Tensor, grads: Sequence[Tensor]
) -> Callable[..., None] | None:
    """A back end's `rescale`, where nobody has the saved gradients or will ask for them again."""
    if upstream.is_cpu and ctx.backend == AUTO:
        return None
    if upstream.dtype is not torch.float32 or ctx.handed_on or keeps_graph():
        return None
    for grad in grads:
        if not (grad.is_contiguous() or grad.is_contiguous(memory_format=torch.channels_last)):
            return None
    return serving("rescale", backends, ctx.backend, (upstream, ctx.grad_scale, *grads))


def _is_all(x: Tensor, value: float) -> bool:
    """Whether x (B,) holds `value` only, where to look does not wait for a device."""
    return x.is_cpu and torch.equal(x, _filled(len(x), value, x.dtype))


@lru_cache(maxsize=32)
def _filled(size: int, value: float, dtype: torch.dtype) -> Tensor:
    return torch.full((size,), value, dtype=dtype, device="cpu")


def register(backends: Sequence[Backend]) -> None:
    """Define the room's operators, served by `backends`."""
    values = "Tensor loss, Tensor weight"
    for loss in LOSSES:
        given = f"{loss.batches}, {loss.constants}"
        need = ", bool[] need" if loss.several else ""
        grads = "".join(f", Tensor grad_{name}" for name in loss.gradients)
        fake, fake_with_gradient = _fakes(loss)
        forward = define_opaque(
            f"_{loss.name}({given}, str backend) -> ({values})", backends=backends, fake=fake
        )
        with_gradient = define_opaque(
            f"_{loss.name_with_gradient}({given}, float grad_scale{need}, str backend)"
            f" -> ({values}{grads})",
            backends=backends,
            fake=fake_with_gradient,
        )
        operator = define_differentiable(
            f"{loss.name}({given}, float grad_scale, str backend) -> ({values})",
            _with_autograd(loss, forward, with_gradient, backends),
        )
        setattr(ops, loss.name, operator)


def plain_calls(device: str) -> dict[str, tuple[Any, ...]]:
    """Arguments of an ordinary float32 call of each operator, to ask back ends for `reasons`."""
    x = torch.empty(2, 3, 8, 8, device=device)
    level = torch.empty(2, device=device)
    index = torch.empty(2, dtype=torch.int64, device=device)
    seed = torch.empty((), dtype=torch.int64, device=device)
    folded = (None, level, seed, index, 0, level, level)
    forward: dict[str, tuple[Any, ...]] = {
        "sid_loss": (x, x, x, 1.2, 1e-5),
        "sid_loss_raw": (x, x, x, *folded, 1.2, 1e-5),
        "dsm_loss": (x, x, level, 0.5),
        "dsm_loss_raw": (x, x, *folded, 0.5),
        "vsd_loss": (x, x, x, None, 0.0, 1e-6),
    }
    calls = {}
    for loss in LOSSES:
        calls[loss.name] = args = forward[loss.name]
        need = ([True] * len(loss.gradients),) if loss.several else ()
        calls[loss.name_with_gradient] = (*args, 1.0, *need)
    return calls
