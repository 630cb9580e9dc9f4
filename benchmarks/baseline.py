"""What comes next is measured against this: one whole iteration on the CIFAR-10 network, in eager.

Usage: python benchmarks/baseline.py --out baseline.json [--rehearse]

The iteration of `plain.py` on EDM's DDPM++ (55.7 million parameters) with what the method's authors
do besides: constants made on the CPU and moved, a test for NaN in every micro-batch, losses read
back. Precisions are those inside the networks, around float32 weights, optimizer and losses; fp16
is EDM's own way, bf16 is autocast. Then the signal-to-rounding ratio of d = T - F: how far the
difference of teacher and fake score, on the trained digits, stands above the error that a
precision makes in it.

`--rehearse` does the same on a tiny network on a CPU, in the precisions that a CPU has.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_timing import Stopwatch, synchronize, waits
from plain import PlainDistiller
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sidfast import DistillConfig, recipes
from sidfast.base.files import write_whole
from sidfast.diffusion import uniform_t_sigma
from sidfast.networks import EDMPrecond
from sidfast.teachers import digits

PRECISIONS = {"cuda": ("fp32", "tf32", "fp16", "bf16"), "cpu": ("fp32", "bf16")}
BATCHES = (64, 256)
PER_ROUND = 128  # at most: saved activations are 339 MiB an image in float32
CIFAR10: dict[str, Any] = {"img_resolution": 32, "channel_mult": [2, 2, 2], "augment_dim": 9}
TINY: dict[str, Any] = {
    "img_resolution": 16,
    "channel_mult": [1, 1],
    "model_channels": 8,
    "num_blocks": 1,
}
UPDATES = (1, 10, 100)
KERNELS = 12  # of the most expensive, kept


class AuthorsDistiller(PlainDistiller):
    """Waits for the device where the authors' code does."""

    def _constant(self, value: float, n: int) -> Tensor:
        return torch.full((n,), value).to(next(self.generator.parameters()).device)

    def _inspect(self, *values: Tensor) -> None:
        for value in values:
            if value.dim() == 0:
                value.item()
            elif torch.isnan(value).any():
                raise FloatingPointError("NaN in a micro-batch")


@contextmanager
def precision(name: str, networks: Sequence[nn.Module]) -> Iterator[None]:
    """Let EDM networks compute in a precision of `PRECISIONS` inside."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = name == "tf32"
    for network in networks:
        network.use_fp16 = name == "fp16"
        if name == "bf16":
            device = next(network.parameters()).device.type
            network.forward = torch.autocast(device, torch.bfloat16)(network.forward)
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before
        for network in networks:
            network.use_fp16 = False
            vars(network).pop("forward", None)


def iteration(
    name: str, batch: int, per_round: int, device: torch.device, times: int
) -> dict[str, Any]:
    """Milliseconds by phase of one iteration, launches, waits of the host, peak memory."""
    on_gpu = device.type == "cuda"
    with device:
        teacher = EDMPrecond(img_channels=3, dropout=0.13, **(CIFAR10 if on_gpu else TINY))
    cfg = recipes.cifar10_uncond(batch=batch, batch_device=per_round, augment=0.0)
    watch = Stopwatch(device)
    marks: list[tuple[str, Any]] = []
    plain = AuthorsDistiller(teacher, cfg, lambda phase: marks.append((phase, watch.mark())))
    timed: list[dict[str, float]] = []

    def step() -> None:
        marks[:] = [("", watch.mark())]
        plain.step()
        synchronize(device)
        phases: dict[str, float] = {}
        for (_, start), (phase, end) in itertools.pairwise(marks):
            phases[phase] = phases.get(phase, 0.0) + 1e3 * watch.between(start, end)
        timed.append(phases)

    with precision(name, (plain.teacher, plain.fake, plain.generator)):
        step()
        step()
        timed.clear()
        for _ in range(times):
            step()
        totals = [sum(phases.values()) for phases in timed]
        row: dict[str, Any] = {
            "precision": name,
            "batch": batch,
            "per_round": per_round,
            "parameters": sum(p.numel() for p in teacher.parameters()),
            "ms": statistics.median(totals),
            "ms_range": [min(totals), max(totals)],
            "images_per_s": 1e3 * batch / statistics.median(totals),
            "phases_ms": {
                phase: statistics.median(phases[phase] for phases in timed) for phase in timed[0]
            },
        }
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            row["waits"] = waits(plain.step)
            row["peak_GiB"] = torch.cuda.max_memory_allocated() / 2**30
            row |= device_work(plain)
    return row


def device_work(plain: PlainDistiller) -> dict[str, Any]:
    """What the device is asked to do in one iteration, and what of it takes most of the time."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        plain.step()
        torch.cuda.synchronize()
    found: dict[str, list[float]] = {}
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found.setdefault(event.name, []).append(event.time_range.elapsed_us() / 1e3)
    most = sorted(found.items(), key=lambda item: -sum(item[1]))[:KERNELS]
    return {
        "launches": sum(map(len, found.values())),
        "device_ms": sum(map(sum, found.values())),
        "kernels": [{"name": n[:120], "calls": len(t), "ms": sum(t)} for n, t in most],
    }


def rounding(device: torch.device, updates: Sequence[int]) -> list[dict[str, Any]]:
    """|d| / |error of d| on the trained digits after so many updates of the fake score.

    d = T(x_t) - F(x_t) as the generator's update sees it; the truth is that of float64.
    """
    torch.manual_seed(0)
    cfg = DistillConfig(batch=128, lr=1e-5)
    plain = PlainDistiller(digits().to(device), cfg)
    rows = []
    with precision("fp32", ()):
        for n in updates:
            while plain.n_img < n * cfg.batch:
                plain.step()
            rows.append({"updates": n, **ratios(plain, device)})
    return rows


@torch.no_grad()
def ratios(plain: PlainDistiller, device: torch.device) -> dict[str, Any]:
    networks = [copy.deepcopy(net).eval() for net in (plain.teacher, plain.fake)]
    images = plain.generate()
    sigma = uniform_t_sigma(torch.rand(len(images), 1, 1, 1, device=device))
    noisy = images + sigma * torch.randn_like(images)

    def difference(nets: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
        wide = noisy.to(next(nets[0].parameters()).dtype)
        teacher_x0, fake_x0 = (net(wide, sigma) for net in nets)
        return (teacher_x0 - fake_x0).double(), teacher_x0.double()

    exact, teacher_x0 = difference([copy.deepcopy(net).double() for net in networks])
    found: dict[str, float] = {}
    for name in PRECISIONS[device.type]:
        with precision(name, networks):
            error = difference(networks)[0] - exact
        found[name] = (exact.norm() / error.norm()).item()
    return {"d_over_T": (exact.norm() / teacher_x0.norm()).item(), "ratios": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    rehearsal = arguments.rehearse
    device = torch.device("cpu" if rehearsal else "cuda")
    torch.backends.cudnn.benchmark = True  # as the authors set it
    made: dict[str, Any] = {"iterations": [], "rounding": []}

    def save() -> None:
        write_whole(arguments.out, json.dumps(made).encode())

    def measure(batch: int, per_round: int, times: int) -> None:
        for name in reversed(PRECISIONS[device.type]):
            try:
                row = iteration(name, batch, per_round, device, times)
            except (RuntimeError, FloatingPointError) as error:
                failure = str(error).partition("\n")[0]
                row = {"precision": name, "batch": batch, "failure": failure}
            made["iterations"].append(row)
            print(name, batch, row.get("failure") or f"{row['ms']:.1f} ms", flush=True)
            save()
            gc.collect()
            torch.cuda.empty_cache()

    small, large = (2, 4) if rehearsal else BATCHES
    measure(small, small, 1 if rehearsal else 7)
    made["rounding"] = rounding(device, UPDATES[:1] if rehearsal else UPDATES)
    save()
    measure(large, 2 if rehearsal else PER_ROUND, 1 if rehearsal else 3)


if __name__ == "__main__":
    main()
