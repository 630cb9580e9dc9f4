"""The digits demo on a GPU, step by step: how long it takes and how good it gets.

Usage: python benchmarks/gpu_digits.py --out digits.json [--rehearse]

The settings are those of `make demo`; nothing but torch is needed, so that it runs where config
files, checkpoints and pictures have no packages. Quality is the Fréchet distance on pixels to the
training digits, or, without scikit-learn, to other samples of the teacher. `--rehearse` makes a few
iterations on a CPU.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from gpu_timing import launches, synchronize, waits

from sidfast import Distiller, recipes
from sidfast.base.errors import InputError
from sidfast.base.files import write_whole
from sidfast.data import digits as training_digits
from sidfast.evaluate import TeacherSampler, pixel_frechet, pixel_stats
from sidfast.teachers import digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    rehearsal = arguments.rehearse
    device = torch.device("cpu" if rehearsal else "cuda")
    samples = 80 if rehearsal else 4000
    cfg = recipes.digits(**({"batch": 8, "kimg": 0.024} if rehearsal else {}))
    teacher = digits(conditional=True).to(device)
    sampler = TeacherSampler(teacher, num_steps=2 if rehearsal else 18)
    try:
        named, references = "training digits", training_digits("train")[0]
    except InputError:
        named, references = "other samples of the teacher", sampler.sample(samples, seed=1)
    stats = pixel_stats(references)
    distiller = Distiller(teacher, cfg)

    def distance(source: Any) -> float:
        return pixel_frechet(source.sample(samples, seed=0), stats)

    made: dict[str, Any] = {
        "iterations": cfg.iterations,
        "batch": cfg.batch,
        "reference": named,
        "samples": samples,
        "frechet_teacher": distance(sampler),
        "frechet_start": distance(distiller),
    }
    distiller.step()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(cfg.iterations - 1):
        metrics = distiller.step()
    synchronize(device)
    seconds = time.perf_counter() - start
    made |= {
        "seconds": seconds,
        "ms_per_iteration": 1e3 * seconds / (cfg.iterations - 1),
        "frechet_end": distance(distiller),
        **{name: value.item() for name, value in metrics.items()},
    }
    write_whole(arguments.out, json.dumps(made).encode())
    if not rehearsal:
        made |= {"launches": launches(distiller.step), "waits": waits(distiller.step)}
        write_whole(arguments.out, json.dumps(made).encode())
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
