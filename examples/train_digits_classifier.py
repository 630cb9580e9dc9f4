"""Train the small classifier whose features measure generated digits.

    python examples/train_digits_classifier.py --out sidfast/evaluate/weights

Trains on the 1,500 training digits for a fixed number of epochs, tests once on the 297 held out,
and writes ``digits_classifier.safetensors`` with a ``.json`` that says how it was made. Takes
less than a minute on one core.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from sidfast.data import digits
from sidfast.evaluate.features import DigitsClassifier


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move each image by -1, 0 or 1 pixel along both axes; background comes in at the edges."""
    padded = F.pad(images, (1, 1, 1, 1), value=-1.0)
    dy, dx = torch.randint(0, 3, (2, len(images), 1, 1), generator=generator)
    size = images.shape[-1]
    rows = dy + torch.arange(size)[:, None]
    columns = dx + torch.arange(size)
    return padded[torch.arange(len(images))[:, None, None], 0, rows, columns].unsqueeze(1)


def train(seed: int, epochs: int, batch: int, lr: float) -> tuple[DigitsClassifier, float]:
    """Return the trained classifier and its mean loss over the last epoch."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits("train")
    net = DigitsClassifier().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.01)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(epochs):
        losses = []
        for chosen in torch.randperm(len(images), generator=generator).split(batch):
            logits = net(shifted(images[chosen], generator))
            loss = F.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return net.eval(), sum(losses) / len(losses)


def accuracy(net: DigitsClassifier, split: str) -> float:
    images, labels = digits(split)
    with torch.no_grad():
        return (net(images).argmax(1) == labels).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and record")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()

    torch.set_num_threads(1)
    start = time.perf_counter()
    net, loss = train(args.seed, args.epochs, args.batch, args.lr)
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": args.seed,
        "epochs": args.epochs,
        "batch": args.batch,
        "lr": args.lr,
        "final_loss": round(loss, 5),
        "train_accuracy": round(accuracy(net, "train"), 5),
        "test_accuracy": round(accuracy(net, "heldout"), 5),
        "test_images": 297,
        "seconds": round(time.perf_counter() - start, 1),
        "parameters": sum(p.numel() for p in net.parameters()),
        "architecture": str(net).splitlines(),
        "torch": torch.__version__,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), args.out / "digits_classifier.safetensors")
    (args.out / "digits_classifier.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
