"""What is raced on a GPU: every operator in its sizes and types, with its rivals.

A new operator is a function that makes a `Contest`, and rows of it in `CONTESTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from types import ModuleType
from typing import Any

import torch
from bench_adam_ema import BETA2, EMA_BETA, EPS, LR, bytes_of_step, cifar10, rivals
from bench_add_noise import eager as eager_add_noise
from bench_dsm_loss import eager as eager_dsm_loss
from bench_group_norm import eager as eager_group_norm
from bench_vsd_loss import eager as eager_vsd_loss
from gpu_timing import Call
from plain import plain_sid_loss
from torch import Tensor

from sidfast import ops
from sidfast.base.batch import spread
from sidfast.base.philox import normal64
from sidfast.ops import adam_ema, group_norm, random, score_losses
from sidfast.ops.score_losses import reference as losses_reference
from sidfast.optim import AdamEMA
from sidfast.teachers import digits
from sidfast.testing.losses import Preconditioning

ALPHA, FLOOR, DATA = 1.2, 1e-5, 0.5
IMAGE, LATENT = (3, 64, 64), (16, 128, 128)
F32, BF16 = torch.float32, torch.bfloat16
PLANAR, LAST = torch.contiguous_format, torch.channels_last
OTHERS = ("reference", "torch")  # back ends that are eager torch or its fused functions
Tensors = list[Tensor]


@dataclass(frozen=True)
class Contest:
    """A row: our back ends and their rivals, which all compute the same.

    Attributes:
        traffic: bytes that must be read and written.
        ours: back end -> call; empty where no back end of ours serves.
        rivals: "eager", "compile" and "library", as far as they exist -> call.
        exact: the results in float64.
        budget: of the largest deviation over the largest exact magnitude.
        results: back end -> what is checked; None checks what the calls return.
    """

    op: str
    mode: str
    shape: Sequence[int]
    dtype: torch.dtype
    layout: str
    traffic: int
    ours: dict[str, Call]
    rivals: dict[str, Call]
    exact: Callable[[], Tensors]
    budget: float
    results: Callable[[str], Tensors] | None = None


@dataclass(frozen=True)
class Place:
    """Where contests are held: full size on a GPU, tiny on a CPU."""

    device: torch.device

    @property
    def full(self) -> bool:
        return self.device.type == "cuda"

    def batch(self, mib: int, bytes_per_sample: int) -> int:
        """Samples that make at least `mib` MiB of traffic."""
        return -(-mib * 2**20 // bytes_per_sample) if self.full else 3

    def sample(self, shape: Sequence[int]) -> Sequence[int]:
        """A sample's (C, H, W), as it is or small."""
        return shape if self.full else (*shape[:-2], 8, 8)

    def normal(self, *shape: int, dtype: torch.dtype = F32) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=dtype)

    def levels(self, n: int) -> Tensor:
        """Noise levels (n,)."""
        return torch.rand(n, device=self.device) + 0.1

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, backend="inductor" if self.full else "eager", dynamic=False)


def short(what: torch.dtype | torch.memory_format) -> str:
    return str(what).removeprefix("torch.").removesuffix("_format")


def serving(room: ModuleType, op: str, *args: Any) -> list[str]:
    """Our back ends that serve `op(*args)`."""
    rows = [row for row in room.BACKENDS if row.name not in OTHERS]
    return [row.name for row in rows if not row.reasons(op, *args)]


def both_ways(loss: Callable[..., Tensor], operands: Sequence[Tensor], upstream: Tensor) -> Tensors:
    """Result and gradients of all operands that want one, for sum(result * upstream)."""
    value = loss(*operands)
    wanting = [x for x in operands if x.requires_grad]
    return [value.detach(), *torch.autograd.grad(value, wanting, upstream.to(value.dtype))]


def wide(operands: Sequence[Tensor]) -> Tensors:
    """Float64 copies that want gradients where the originals do."""
    return [x.detach().double().requires_grad_(x.requires_grad) for x in operands]


def add_noise(
    place: Place, mib: int, dtype: torch.dtype, out: torch.dtype, form: torch.memory_format
) -> Contest:
    sample, width = place.sample(IMAGE), dtype.itemsize + out.itemsize
    n = place.batch(mib, prod(sample) * width)
    x, sigma = place.normal(n, *sample, dtype=dtype), place.levels(n)
    index, seed = torch.arange(n, device=place.device), torch.tensor(1, device=place.device)
    column = spread(sigma, x).to(dtype)

    def eager(x: Tensor, column: Tensor) -> Tensor:
        return eager_add_noise(x, column).to(out, memory_format=form)

    def ours(name: str) -> Tensors:
        key: dict[str, Any] = {"seed": seed, "index": index, "stream": 2, "backend": name}
        return [ops.add_noise(x, sigma, dtype=out, memory_format=form, **key)]

    def exact() -> Tensors:
        noise = normal64(seed, index, x.shape, 2)
        return [x.double() + spread(sigma, x).double() * noise]

    compiled = place.compile(eager)
    names = serving(random, "add_noise", x, sigma, None, seed, index, 2, out, form)
    return Contest(
        "add_noise",
        "forward",
        x.shape,
        dtype,
        f"contiguous to {short(out)} {short(form)}",
        x.numel() * width,
        {name: partial(ours, name) for name in names},
        {"eager": lambda: eager(x, column), "compile": lambda: compiled(x, column)},
        exact,
        max(4e-6, torch.finfo(out).eps),
    )


def loss_contest(
    place: Place,
    op: str,
    operands: Sequence[Tensor],
    traffic: int,
    ours: Callable[..., Tensor],
    eager: Callable[..., Tensor],
    exact: Callable[..., tuple[Tensor, Tensor]],
    backends: Sequence[str],
    *,
    backward: bool = True,
    budget: float = 4e-7,
) -> Contest:
    """A score loss with its gradients, for an upstream gradient that our call is told.

    Args:
        operands: images first; those that want gradients say so.
        traffic: bytes per element of the images.
        ours: takes operands, `grad_scale` and `backend`; eager, exact: take operands.
        backward: False leaves ours out where the forward pass has made the gradients.
    """
    images, scale = operands[0], 1 / len(operands[0])
    upstream = torch.full((len(images),), scale, device=place.device)
    compiled = place.compile(eager)

    def results(name: str) -> Tensors:
        return both_ways(partial(ours, grad_scale=scale, backend=name), operands, upstream)

    def forward(name: str) -> Tensor:
        return ours(*operands, grad_scale=scale, backend=name)

    return Contest(
        op,
        "forward+backward" if backward else "forward, which makes the gradients",
        images.shape,
        images.dtype,
        " ".join(dict.fromkeys(short(each.dtype) for each in operands)),
        traffic * images.numel(),
        {name: partial(results if backward else forward, name) for name in backends},
        {
            "eager": lambda: both_ways(eager, operands, upstream),
            "compile": lambda: both_ways(compiled, operands, upstream),
        },
        lambda: both_ways(lambda *wide: exact(*wide)[0], wide(operands), upstream),
        max(budget, *(torch.finfo(each.dtype).eps for each in operands)),
        results,
    )


def near_images(place: Place, n: int, sample: Sequence[int], *dtypes: torch.dtype) -> Tensors:
    """Images, a teacher near them and a fake score near the teacher."""
    images, *noise = (place.normal(n, *sample) for _ in range(3))
    teacher = images + 0.3 * noise[0]
    near = (images, teacher, teacher + 0.05 * noise[1])
    return [each.to(dtype) for each, dtype in zip(near, dtypes, strict=True)]


def sid_loss(
    place: Place, mib: int, dtype: torch.dtype, sample: Sequence[int], backward: bool
) -> Contest:
    sample, traffic = place.sample(sample), 6 * dtype.itemsize
    n = place.batch(mib, prod(sample) * traffic)
    operands = near_images(place, n, sample, dtype, dtype, dtype)
    names = serving(score_losses, "sid_loss", *operands, ALPHA, FLOOR)
    return loss_contest(
        place,
        "sid_loss",
        [each.requires_grad_() for each in operands],
        traffic,
        partial(ops.sid_loss, alpha=ALPHA),
        partial(plain_sid_loss, alpha=ALPHA),
        partial(losses_reference.sid_loss, alpha=ALPHA, floor=FLOOR),
        names,
        backward=backward,
    )


def sid_loss_raw(place: Place, mib: int, dtype: torch.dtype, keyed: bool) -> Contest:
    """Raw outputs in `dtype`, images in float32; rivals get their noisy images ready-made."""
    sample, traffic = place.sample(IMAGE), 8 + 4 * dtype.itemsize + (0 if keyed else 4)
    n = place.batch(mib, prod(sample) * traffic)
    images, *raws = near_images(place, n, sample, F32, dtype, dtype)
    sigma, c_skip, c_out = levels = Preconditioning.of(place.levels(n))
    index, seed = torch.arange(n, device=place.device), torch.tensor(1, device=place.device)
    noisy = ops.add_noise(images, sigma, seed=seed, index=index)
    given: dict[str, Any] = {"seed": seed, "index": index} if keyed else {"noisy": noisy}
    operands = [each.requires_grad_() for each in (images, *raws)]

    def ours(*operands: Tensor, **options: Any) -> Tensor:
        return ops.sid_loss_raw(*operands, *levels, ALPHA, FLOOR, **given, **options)

    def eager(images: Tensor, *raws: Tensor) -> Tensor:
        # The gradient through the noisy images is theirs where they are made from them.
        x_t = noisy + (images - images.detach() if keyed else 0)
        return plain_sid_loss(images, *(levels.denoised(raw, x_t) for raw in raws), ALPHA)

    def exact(*wide: Tensor) -> tuple[Tensor, Tensor]:
        key = (None, sigma, seed, index, 0) if keyed else (noisy, sigma, None, None, 0)
        return losses_reference.sid_loss_raw(*wide, *key, c_skip, c_out, ALPHA, FLOOR)

    args = (*(each.detach() for each in operands), None, sigma, seed, index, 0, c_skip, c_out)
    return loss_contest(
        place,
        "sid_loss_raw" + (", noise regenerated" if keyed else ", noisy images given"),
        operands,
        traffic,
        ours,
        eager,
        exact,
        serving(score_losses, "sid_loss_raw", *args, ALPHA, FLOOR),
        backward=False,
        budget=1e-5,
    )


def dsm_loss(place: Place, mib: int, dtype: torch.dtype, backward: bool) -> Contest:
    sample, traffic = place.sample(IMAGE), 3 * dtype.itemsize
    n = place.batch(mib, prod(sample) * traffic)
    images, denoised, _ = near_images(place, n, sample, dtype, dtype, dtype)
    sigma = place.levels(n)
    names = serving(score_losses, "dsm_loss", images, denoised, sigma, DATA)
    return loss_contest(
        place,
        "dsm_loss",
        (images, denoised.requires_grad_()),
        traffic,
        partial(ops.dsm_loss, sigma=sigma),
        partial(eager_dsm_loss, sigma=spread(sigma, images)),
        partial(losses_reference.dsm_loss, sigma=sigma, sigma_data=DATA),
        names,
        backward=backward,
    )


def vsd_loss(place: Place, mib: int, dtype: torch.dtype) -> Contest:
    sample, traffic = place.sample(IMAGE), 4 * dtype.itemsize
    n = place.batch(mib, prod(sample) * traffic)
    images, *others = near_images(place, n, sample, dtype, dtype, dtype)
    names = serving(score_losses, "vsd_loss", images, *others, None, 0.0, 1e-6)

    return loss_contest(
        place,
        "vsd_loss",
        (images.requires_grad_(), *others),
        traffic,
        ops.vsd_loss,
        eager_vsd_loss,
        partial(losses_reference.vsd_loss, scale=None, floor=0.0, eps=1e-6),
        names,
        backward=False,
    )


def group_norm_silu(
    place: Place, mib: int, dtype: torch.dtype, form: torch.memory_format
) -> Contest:
    sample, groups = place.sample((128, 32, 32)), 32
    n, channels = place.batch(mib, 5 * prod(sample) * dtype.itemsize), sample[0]
    x = place.normal(n, *sample, dtype=dtype).to(memory_format=form)
    weight, bias, offset = (place.normal(*s) for s in ((channels,), (channels,), (n, channels)))
    operands = [each.requires_grad_() for each in (x, weight, bias, offset)]
    upstream = torch.randn_like(x)

    def eager(x: Tensor, *others: Tensor) -> Tensor:
        return eager_group_norm(x, groups, *(each.to(x.dtype) for each in others))

    def ours(name: str) -> Tensors:
        def call(x: Tensor, weight: Tensor, bias: Tensor, offset: Tensor) -> Tensor:
            options: dict[str, Any] = {"offset": offset, "backend": name}
            return ops.group_norm_silu(x, groups, weight, bias, 1e-6, **options)

        return both_ways(call, operands, upstream)

    x, weight, bias, offset = (each.detach() for each in operands)
    args = (x, groups, weight, bias, 1e-6, offset, None, None, True)
    compiled = place.compile(eager)
    return Contest(
        "group_norm_silu",
        "forward+backward",
        x.shape,
        dtype,
        short(form),
        5 * x.numel() * dtype.itemsize,
        {name: partial(ours, name) for name in serving(group_norm, "group_norm_silu", *args)},
        {
            "eager": lambda: both_ways(eager, operands, upstream),
            "compile": lambda: both_ways(compiled, operands, upstream),
        },
        lambda: both_ways(eager, wide(operands), upstream),
        max(1e-5, 2 * torch.finfo(dtype).eps),
    )


def adam_ema_step(place: Place, beta1: float) -> Contest:
    """A step of the optimizer on the CIFAR-10 network's parameters."""
    network = cifar10() if place.full else digits()
    params = list(network.to(place.device).requires_grad_().parameters())
    params = params if place.full else params[:4]
    average = [p.detach().clone() for p in params]
    grads = [torch.randn_like(p) * 0.01 for p in params]
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
    betas, size = (beta1, BETA2), sum(p.numel() for p in params)

    def results(name: str, dtype: torch.dtype = F32) -> Tensors:
        """Weights, moments and average of fresh copies after two steps."""
        copies = [p.detach().to(dtype, copy=True).requires_grad_() for p in params]
        ema = [torch.zeros_like(p) for p in copies]
        for p, grad in zip(copies, grads, strict=True):
            p.grad = grad.to(dtype)
        optimizer = AdamEMA(copies, LR, betas, EPS, ema=ema, backend=name)
        for _ in range(2):
            optimizer.step(ema_beta=0.75)  # Triton's interpreter would round most others
        moments = [value for state in optimizer.state.values() for value in state.values()]
        return [*(p.detach() for p in copies), *ema, *moments]

    one_pass = {
        name: AdamEMA(params, LR, betas, EPS, ema=average, backend=name)
        for name in serving(adam_ema, "adam_ema", *adam_ema_call(params, average, beta1))
    }
    return Contest(
        "adam_ema",
        f"step, beta1 {beta1:g}",
        (size,),
        F32,
        f"{len(params)} tensors",
        bytes_of_step(size, beta1),
        {name: partial(each.step, ema_beta=EMA_BETA) for name, each in one_pass.items()},
        rivals(params, average, betas),
        lambda: results("reference", torch.float64),
        1e-6,
        results,
    )


def adam_ema_call(params: Tensors, average: Tensors, beta1: float) -> tuple[Any, ...]:
    """Operands to ask back ends about."""
    plain = [p.detach() for p in params]
    steps = [p.new_zeros(()) for p in plain]
    skipped = torch.zeros((), dtype=torch.int64, device=plain[0].device)
    first = plain if beta1 else None
    return (adam_ema.Operands(plain, first, plain, steps, average, None, skipped),)


CONTESTS: tuple[partial[Contest], ...] = (
    partial(adam_ema_step, beta1=0.0),
    partial(adam_ema_step, beta1=0.9),
    partial(add_noise, mib=64, dtype=F32, out=F32, form=PLANAR),
    partial(add_noise, mib=512, dtype=F32, out=F32, form=PLANAR),
    partial(add_noise, mib=512, dtype=BF16, out=BF16, form=PLANAR),
    partial(add_noise, mib=512, dtype=F32, out=BF16, form=LAST),
    partial(sid_loss, mib=64, dtype=F32, sample=IMAGE, backward=False),
    partial(sid_loss, mib=512, dtype=F32, sample=IMAGE, backward=False),
    partial(sid_loss, mib=512, dtype=F32, sample=IMAGE, backward=True),
    partial(sid_loss, mib=512, dtype=BF16, sample=IMAGE, backward=False),
    partial(sid_loss, mib=512, dtype=F32, sample=LATENT, backward=False),
    partial(sid_loss_raw, mib=512, dtype=BF16, keyed=True),
    partial(sid_loss_raw, mib=512, dtype=BF16, keyed=False),
    partial(dsm_loss, mib=64, dtype=F32, backward=False),
    partial(dsm_loss, mib=512, dtype=F32, backward=False),
    partial(dsm_loss, mib=512, dtype=F32, backward=True),
    partial(vsd_loss, mib=512, dtype=F32),
    partial(group_norm_silu, mib=512, dtype=F32, form=PLANAR),
    partial(group_norm_silu, mib=512, dtype=BF16, form=LAST),
)
