"""The score losses in CUDA, float32 inside: csrc/score_losses/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sidfast.base import cuda
from sidfast.ops.score_losses.contract import (
    BATCHES,
    gradients_like,
    hand_over,
    per_sample_outputs,
    row_shape,
)

_STORAGE = (torch.float32, torch.bfloat16, torch.float16)
_ALIGNMENT = 16  # bytes

Batches = Sequence[Tensor | None]


def reasons(op: str, *args: Any) -> list[str]:
    """Why the CUDA library cannot serve `op(*args)`; empty if it can."""
    name = op.removesuffix("_grads").removesuffix("_grad")
    batches: Batches = args[BATCHES[op]]
    found = cuda.reasons(*[arg for arg in args if isinstance(arg, Tensor)])
    dtypes = [batch.dtype for batch in batches if batch is not None]
    found += [f"does not compute in {each}" for each in set(dtypes) if each not in _STORAGE]
    if op == "rescale":
        return found
    names = ", ".join(map(str, dtypes))
    if not name.endswith("_raw"):
        if len(set(dtypes)) > 1:
            found.append(f"needs one dtype, got {names}")
        return found
    outputs = 2 if name == "sid_loss_raw" else 1
    images, networks = {dtypes[0], *dtypes[1 + outputs :]}, set(dtypes[1 : 1 + outputs])
    if len(images) > 1 or len(networks) > 1 or not images <= networks | {torch.float32}:
        found.append(f"needs raw outputs of one dtype and images of it or float32, got {names}")
    return found


def sid_loss(*args: Any) -> tuple[Tensor, ...]:
    return sid_loss_grads(*args)[:2]


def sid_loss_grads(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    alpha: float,
    floor: float,
    grad_scale: float = 1.0,
    need: Sequence[bool] = (False,) * 3,
) -> tuple[Tensor, ...]:
    call = _Call((images, teacher_x0, fake_x0), slice(0, 3), need)
    cuda.library().sid_loss(
        *call.batches,
        cuda.storage(images.dtype),
        *call.shape,
        alpha,
        floor,
        grad_scale,
        *call.results,
    )
    return call.finish()


def sid_loss_raw(*args: Any) -> tuple[Tensor, ...]:
    return sid_loss_raw_grads(*args)[:2]


def sid_loss_raw_grads(
    images: Tensor,
    teacher_raw: Tensor,
    fake_raw: Tensor,
    noisy: Tensor | None,
    sigma: Tensor,
    seed: Tensor | None,
    index: Tensor | None,
    stream: int,
    c_skip: Tensor,
    c_out: Tensor,
    alpha: float,
    floor: float,
    grad_scale: float = 1.0,
    need: Sequence[bool] = (False,) * 4,
) -> tuple[Tensor, ...]:
    call = _Call((images, teacher_raw, fake_raw, noisy), slice(0, 4), need, raw=True)
    *batches, given = call.batches
    cuda.library().sid_loss_raw(
        *batches,
        cuda.storage(images.dtype),
        cuda.storage(teacher_raw.dtype),
        *call.shape,
        call.channels,
        given,
        *call.per_sample(sigma, c_skip, c_out, seed, index),
        stream,
        alpha,
        floor,
        grad_scale,
        *call.results,
    )
    return call.finish()


def vsd_loss(*args: Any) -> tuple[Tensor, ...]:
    return _vsd(*args, need=False)[:2]


def vsd_loss_grad(*args: Any) -> tuple[Tensor, ...]:
    return _vsd(*args, need=True)


def _vsd(
    images: Tensor,
    teacher_x0: Tensor,
    fake_x0: Tensor,
    scale: Tensor | None,
    floor: float,
    eps: float,
    grad_scale: float = 1.0,
    *,
    need: bool,
) -> tuple[Tensor, ...]:
    call = _Call((images, teacher_x0, fake_x0), slice(0, 1), (need,))
    cuda.library().vsd_loss(
        *call.batches,
        *call.per_sample(scale),
        cuda.storage(images.dtype),
        *call.shape,
        floor,
        eps,
        grad_scale,
        *call.results,
    )
    return call.finish()


def dsm_loss(*args: Any) -> tuple[Tensor, ...]:
    return _dsm(*args, need=False)[:2]


def dsm_loss_grad(*args: Any) -> tuple[Tensor, ...]:
    return _dsm(*args, need=True)


def _dsm(
    images: Tensor,
    denoised: Tensor,
    sigma: Tensor,
    sigma_data: float,
    grad_scale: float = 1.0,
    *,
    need: bool,
) -> tuple[Tensor, ...]:
    call = _Call((images, denoised), slice(1, 2), (need,))
    cuda.library().dsm_loss(
        *call.batches,
        *call.per_sample(sigma),
        cuda.storage(images.dtype),
        *call.shape,
        sigma_data,
        grad_scale,
        *call.results,
    )
    return call.finish()


def dsm_loss_raw(*args: Any) -> tuple[Tensor, ...]:
    return _dsm_raw(*args, need=False)[:2]


def dsm_loss_raw_grad(*args: Any) -> tuple[Tensor, ...]:
    return _dsm_raw(*args, need=True)


def _dsm_raw(
    images: Tensor,
    raw: Tensor,
    noisy: Tensor | None,
    sigma: Tensor,
    seed: Tensor | None,
    index: Tensor | None,
    stream: int,
    c_skip: Tensor,
    c_out: Tensor,
    sigma_data: float,
    grad_scale: float = 1.0,
    *,
    need: bool,
) -> tuple[Tensor, ...]:
    call = _Call((images, raw, noisy), slice(1, 2), (need,), raw=True)
    *batches, given = call.batches
    cuda.library().dsm_loss_raw(
        *batches,
        cuda.storage(images.dtype),
        cuda.storage(raw.dtype),
        *call.shape,
        call.channels,
        given,
        *call.per_sample(sigma, c_skip, c_out, seed, index),
        stream,
        sigma_data,
        grad_scale,
        *call.results,
    )
    return call.finish()


def rescale(upstream: Tensor, made_for: float, *grads: Tensor) -> None:
    given = [(grad.data_ptr(), cuda.storage(grad.dtype)) for grad in grads]
    cuda.library().rescale(
        given,
        upstream.data_ptr(),
        upstream.stride(0),
        made_for,
        *row_shape(grads[0]),
        *cuda.where(upstream),
    )


class _Call:
    """Arguments and results of one call of the library, which live until it is launched.

    Args:
        batches: as given.
        differentiable: which of them get a gradient.
        need: which of those are wanted.
        raw: whether network outputs are raw.

    Attributes:
        batches: pointers to them, aligned and with one element order in every sample.
        channels: their number where they are stored last, else 1.
        shape: samples, and elements of each.
        results: the arguments with which every function of the library ends.
    """

    def __init__(
        self,
        batches: Batches,
        differentiable: slice,
        need: Sequence[bool],
        *,
        raw: bool = False,
    ) -> None:
        images = batches[0]
        assert images is not None
        self._outputs = per_sample_outputs(*batches)
        self._grads = gradients_like(batches[differentiable], need)
        rows, same_order, self.channels = _rows(batches)
        self._made = self._grads if same_order else list(map(_in_rows_order, self._grads))
        self.shape = row_shape(images)
        where = cuda.where(images)
        library = cuda.library()
        size = (
            library.workspace_raw(*self.shape, where[1])
            if raw
            else library.workspace(cuda.storage(images.dtype), *self.shape, where[1])
        )
        workspace = images.new_empty(size, dtype=torch.float64)
        self._alive: list[Tensor | None] = [*rows, workspace]
        self.batches = _pointers(rows)
        self.results = (
            *_pointers(self._outputs),
            *(
                grad if wanted else 0
                for grad, wanted in zip(_pointers(self._made), need, strict=True)
            ),
            workspace.data_ptr(),
            *where,
        )

    def per_sample(self, *values: Tensor | None) -> list[int]:
        """Pointers to values that the kernels find one after the other."""
        dense = [None if value is None else value.contiguous() for value in values]
        self._alive += dense
        return _pointers(dense)

    def finish(self) -> tuple[Tensor, ...]:
        """What the operator returns."""
        hand_over(self._made, self._grads)
        return *self._outputs, *self._grads


def _pointers(tensors: Batches) -> list[int]:
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def _rows(batches: Batches) -> tuple[Batches, bool, int]:
    """The batches aligned and with one element order in every sample, whether it is theirs, and
    the number of channels that are stored last, else 1.

    Any dense order will do, since sums do not mind; batches of several become contiguous copies.
    """
    given = [batch for batch in batches if batch is not None]
    for order in (torch.contiguous_format, torch.channels_last):
        if all(batch.is_contiguous(memory_format=order) for batch in given):
            channels = given[0].shape[1] if order is torch.channels_last else 1
            return list(map(_aligned, batches)), True, channels
    dense = [None if batch is None else batch.contiguous() for batch in batches]
    return list(map(_aligned, dense)), False, 1


def _aligned(x: Tensor | None) -> Tensor | None:
    """`x`, or a copy of a view that begins between the 16-byte accesses of the kernels."""
    return x if x is None or x.data_ptr() % _ALIGNMENT == 0 else x.clone()


def _in_rows_order(grad: Tensor) -> Tensor:
    """Where a gradient with strides of its own is first written."""
    return torch.empty_like(grad, memory_format=torch.contiguous_format)
