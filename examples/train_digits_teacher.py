"""Train the bundled teacher: a small DDPM++ that denoises 8x8 handwritten digits.

    python examples/train_digits_teacher.py --out sidfast/teachers/weights/digits_uncond
    python examples/train_digits_teacher.py --out sidfast/teachers/weights/digits_cond --conditional

EDM's objective (arXiv 2206.00364, table 1) on the 1,500 training digits. Writes OUT.safetensors
and OUT.json, which records how the weights were made and what was measured: the quality of 10,000
samples, and whether the network denoises its training images better than the 297 held out.
Everything random is keyed by the seed, so one machine makes the same file twice.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

import sidfast
from sidfast import ops
from sidfast.data import digits
from sidfast.data.digits import Split
from sidfast.diffusion import Stream, lognormal_sigma
from sidfast.evaluate import TeacherSampler, Yardstick, digits_classifier, measure
from sidfast.networks import EDMPrecond, network_config
from sidfast.networks.files import save_network
from sidfast.ops.random import Key
from sidfast.optim import AdamEMA, ema_beta

CLASSES = 10
SPLITS: tuple[Split, ...] = ("train", "heldout")
BACKEND = "reference"  # the weights must not depend on whether the native library was built
VALIDATION_INDEX = 1 << 40  # validation draws its noise far away from any training index


def build(args: argparse.Namespace) -> EDMPrecond:
    return EDMPrecond(
        img_resolution=8,
        img_channels=1,
        label_dim=CLASSES if args.conditional else 0,
        model_channels=args.channels,
        channel_mult=args.channel_mult,
        num_blocks=args.blocks,
        attn_resolutions=args.attention,
        dropout=args.dropout,
    )


def denoising_losses(
    net: EDMPrecond, images: Tensor, labels: Tensor, seed: int, index: Tensor
) -> Tensor:
    """EDM's weighted denoising loss of each image, (B,), at noise levels keyed by `index`."""
    key: dict[str, Any] = {"seed": seed, "index": index, "backend": BACKEND}
    sigma = lognormal_sigma(ops.normal((len(images),), stream=Stream.TEACHER_SIGMA, **key))
    noisy = ops.add_noise(images, sigma, stream=Stream.TEACHER_NOISE, **key)
    classes = one_hot(labels, CLASSES).float() if net.label_dim else None
    denoised = net(noisy, sigma, classes, key=Key(seed, index, Stream.TEACHER_DROPOUT))
    return ops.dsm_loss(images, denoised, sigma, grad_scale=1 / len(images), backend=BACKEND)


def train(net: EDMPrecond, args: argparse.Namespace) -> tuple[EDMPrecond, float]:
    """Return the moving average of the trained weights and the mean loss of the last 500 steps."""
    images, labels = digits("train")
    average = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = AdamEMA(net.parameters(), lr=args.lr, ema=list(average.parameters()))
    recent: list[float] = []
    start = time.perf_counter()
    for step in range(args.iterations):
        n_img = step * args.batch
        index = torch.arange(n_img, n_img + args.batch)
        key: dict[str, Any] = {"seed": args.seed, "index": index, "backend": BACKEND}
        chosen = ops.integers((args.batch,), len(images), stream=Stream.TEACHER_DATA, **key)
        warm_up = min(1.0, (step + 1) / 100)
        decay = 0.5 * (1 + math.cos(math.pi * step / args.iterations))
        optimizer.param_groups[0]["lr"] = args.lr * warm_up * decay

        optimizer.zero_grad()
        loss = denoising_losses(net, images[chosen], labels[chosen], args.seed, index).mean()
        loss.backward()
        beta = ema_beta(args.batch, n_img, halflife=args.ema_kimg * 1000)
        optimizer.step(ema_beta=beta)

        recent = [*recent[-499:], loss.item()]
        if (step + 1) % 500 == 0:
            losses = [validation_loss(average, split, args.seed) for split in SPLITS]
            print(
                f"step {step + 1}: loss {sum(recent) / len(recent):.3f}, average network "
                f"train {losses[0]:.3f} held out {losses[1]:.3f}, "
                f"{(step + 1) / (time.perf_counter() - start):.1f} steps/s",
                flush=True,
            )
    return average, sum(recent) / len(recent)


@torch.no_grad()
def validation_loss(net: EDMPrecond, split: Split, seed: int, rounds: int = 20) -> float:
    """Mean denoising loss over a split, with the same noise at every call."""
    images, labels = digits(split)
    images, labels = images[:297], labels[:297]
    losses = []
    for number in range(rounds):
        first = VALIDATION_INDEX + number * len(images)
        index = torch.arange(first, first + len(images))
        losses.append(denoising_losses(net, images, labels, seed, index))
    return torch.cat(losses).mean().item()


def describe(net: EDMPrecond, args: argparse.Namespace, loss: float) -> dict[str, Any]:
    """How the weights were made and what 10,000 samples of 18 Heun steps are worth."""
    images, heldout = digits("train")[0], digits("heldout")[0]
    yardstick = Yardstick(images, heldout, digits_classifier(), seed=args.seed)
    return {
        "command": shlex.join(["python", *sys.argv]),
        "seed": args.seed,
        "network": network_config(net),
        "parameters": sum(p.numel() for p in net.parameters()),
        "images_seen": args.iterations * args.batch,
        "final_loss": round(loss, 4),
        "average_network_loss": {
            split: round(validation_loss(net, split, args.seed), 4) for split in SPLITS
        },
        "quality": asdict(measure(TeacherSampler(net), yardstick, seed=args.seed)),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "sidfast": sidfast.__version__,
        },
    }


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    net, loss = train(build(args), args)
    record = describe(net, args, loss)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    made_by = {key: record[key] for key in ("command", "seed", "final_loss", "versions")}
    save_network(net, args.out.with_suffix(".safetensors"), extra=made_by)
    args.out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="path of both files, no suffix")
    parser.add_argument("--conditional", action="store_true", help="class-conditional network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3, help="peak; cosine decay to zero")
    parser.add_argument("--ema-kimg", type=float, default=20, help="EMA half-life, 1000 images")
    parser.add_argument("--channels", type=int, default=16, help="model_channels")
    parser.add_argument("--channel-mult", type=int, nargs="+", default=[1, 1])
    parser.add_argument("--blocks", type=int, default=1, help="num_blocks")
    parser.add_argument("--attention", type=int, nargs="*", default=[4], help="attn_resolutions")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
