"""Hold `variational_score_distillation_loss` against FastGen's and ModelOpt's own.

    pip install nvidia-modelopt
    git clone https://github.com/NVlabs/FastGen     # and what its requirements.txt names
    PYTHONPATH=FastGen python examples/drop_in_losses.py --shape 2 16 21 60 104

Takes whichever is there. On one batch prints how far loss and gradient are from the definition in
float64, relative to the largest element, and the time of forward and backward, theirs and ours in
turn.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

from sidfast.losses import variational_score_distillation_loss
from sidfast.testing.tensors import relative_error

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

LIBRARIES = {
    "FastGen": ("fastgen.methods.common_loss", "variational_score_distillation_loss"),
    "ModelOpt": ("modelopt.torch.fastgen.losses", "vsd_loss"),
}


def definition(x: Tensor, teacher: Tensor, fake: Tensor, scale: Tensor) -> Tensor:
    """The libraries' formula; everything but the last x is a constant."""
    dims = tuple(range(1, x.dim()))
    distance = (x.detach() - teacher).abs().mean(dims, keepdim=True)
    weight = scale.reshape(distance.shape) / (distance + 1e-6)
    return (x - (x.detach() - weight * (fake - teacher))).square().mean() / 2


def loss_and_gradient(loss: Loss, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    images = tensors[0].detach().requires_grad_()
    value = loss(images, *tensors[1:])
    value.backward()
    assert images.grad is not None
    return value.detach(), images.grad


def milliseconds(loss: Loss, tensors: Sequence[Tensor]) -> float:
    synchronize = torch.cuda.synchronize if tensors[0].is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    loss_and_gradient(loss, tensors)
    synchronize()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs="+", default=[2, 16, 21, 60, 104])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(args.shape, generator=generator) for _ in range(3)]
    teacher = noise[0] + 0.3 * noise[1]
    dtype = getattr(torch, args.dtype)
    tensors = [
        each.to(args.device, dtype) for each in (noise[0], teacher, teacher + 0.05 * noise[2])
    ]
    tensors.append(torch.linspace(0.5, 2, args.shape[0], device=args.device))
    exact = loss_and_gradient(definition, [each.double() for each in tensors])

    print(f"{tuple(args.shape)} {args.dtype}, {args.device}, {torch.get_num_threads()} threads")
    print(f"{'':10}{'loss error':>12}{'gradient error':>16}{'ms':>9}")
    for library, (module, name) in LIBRARIES.items():
        try:
            theirs = getattr(importlib.import_module(module), name)
        except ImportError as error:
            print(f"{library:10}not here: {error}")
            continue
        rows: dict[str, Loss] = {library: theirs, "sidfast": variational_score_distillation_loss}
        times: dict[str, list[float]] = {row: [] for row in rows}
        for _ in range(args.rounds):
            for row, loss in rows.items():
                times[row].append(milliseconds(loss, tensors))
        for row, loss in rows.items():
            errors = map(relative_error, loss_and_gradient(loss, tensors), exact)
            value, gradient = errors
            print(f"{row:10}{value:12.1e}{gradient:16.1e}{median(times[row][1:]):9.2f}")


if __name__ == "__main__":
    main()
