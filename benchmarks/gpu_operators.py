"""Every operator on a GPU: checked against float64, then timed in turn with its rivals.

Usage: python benchmarks/gpu_operators.py --out operators.json [--rehearse]

The rows are those of `gpu_contests.CONTESTS`; a new operator has a call in `SMALL_CALLS` too.
`--rehearse` runs everything on tiny tensors on a CPU, with what serves there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from conftest import worst_error
from gpu_contests import BF16, CONTESTS, F32, Contest, Place, short
from gpu_timing import Call, launches, race, summary, synchronize
from torch import Tensor

from sidfast import ops
from sidfast.base import cuda
from sidfast.base.files import write_whole

SECONDS = 1.0  # a row may take, its rivals included, beyond compilation
CALLS = 200  # on tiny tensors, timed together
GEMM = 8192

# Calls on tiny tensors x, y, z and noise levels s: what they cost is the host's work.
SMALL_CALLS: dict[str, Callable[..., Tensor]] = {
    "torch.add": lambda x, y, z, s, key: torch.add(x, y),
    "sid_loss": lambda x, y, z, s, key: ops.sid_loss(x, y, z),
    "dsm_loss": lambda x, y, z, s, key: ops.dsm_loss(x.detach(), y, s),
    "add_noise": lambda x, y, z, s, key: ops.add_noise(x, s, **key),
    "dropout": lambda x, y, z, s, key: ops.dropout(x, 0.1, **key),
    "normal": lambda x, y, z, s, key: ops.normal(x.shape, **key),
}


def hold(contest: Contest, place: Place) -> dict[str, Any]:
    """The contest's row; a back end with a wrong result gets no time."""
    exact = contest.exact()
    errors, failures, calls = {}, {}, dict(contest.rivals)
    for name, call in contest.ours.items():
        try:
            made = contest.results(name) if contest.results else call()
            errors[name] = worst_error(made, exact)
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"[:200]
            continue
        if errors[name] <= contest.budget:
            calls[name] = call
        else:
            failures[name] = f"error {errors[name]:.2e}, allowed {contest.budget:.2e}"
    del exact
    for name, call in contest.rivals.items():
        try:
            call()
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"[:200]
            del calls[name]
    source = torch.zeros(contest.traffic // 2, dtype=torch.uint8, device=place.device)
    target = torch.empty_like(source)
    calls["copy"] = partial(target.copy_, source)
    times = race(calls, place.device, SECONDS)
    counted = [name for name in calls if name == "eager" or name in contest.ours]
    return {
        "op": contest.op,
        "mode": contest.mode,
        "shape": list(contest.shape),
        "dtype": short(contest.dtype),
        "layout": contest.layout,
        "bytes": contest.traffic,
        "ours": list(contest.ours),
        "times": {name: summary(series) for name, series in times.items()},
        "launches": {name: launches(calls[name]) for name in counted} if place.full else {},
        "errors": errors,
        "budget": contest.budget,
        "failures": failures,
    }


def floors(place: Place) -> dict[str, Any]:
    """What this device reaches at best: copies, and matrix products by precision."""
    size = 2**30 if place.full else 2**16
    source = torch.zeros(size, dtype=torch.uint8, device=place.device)
    calls: dict[str, Call] = {"copy": partial(torch.empty_like(source).copy_, source)}
    n = GEMM if place.full else 16
    for name, dtype in (("fp32", F32), ("tf32", F32), ("fp16", torch.float16), ("bf16", BF16)):
        a, b = (place.normal(n, n, dtype=dtype) for _ in range(2))
        calls[name] = partial(product, a, b, name == "tf32")
    medians = {
        name: summary(series)["median"]
        for name, series in race(calls, place.device, SECONDS).items()
    }
    return {
        "copy_GB_per_s": 2 * size / medians.pop("copy") / 1e9,
        "gemm_TFLOP_per_s": {name: 2 * n**3 / time / 1e12 for name, time in medians.items()},
    }


def product(a: Tensor, b: Tensor, tf32: bool) -> Tensor:
    torch.backends.cuda.matmul.allow_tf32 = tf32
    return a @ b


def small_calls(place: Place) -> list[dict[str, Any]]:
    """Microseconds of the host's time that a call takes, forward alone."""
    key: dict[str, Any] = {
        "seed": torch.tensor(1, device=place.device),
        "index": torch.arange(2, device=place.device),
    }
    rows = []
    for gradient in (False, True):
        operands = [place.normal(2, 1, 4, 4).requires_grad_(gradient) for _ in range(3)]
        sigma = place.levels(2)
        for name, call in SMALL_CALLS.items():
            series = []
            for _ in range(12):
                synchronize(place.device)
                start = time.perf_counter()
                for _ in range(CALLS):
                    call(*operands, sigma, key)
                series.append((time.perf_counter() - start) / CALLS)
            median = 1e6 * summary(series[2:])["median"]
            rows.append({"op": name, "gradient": gradient, "us": median})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--resume", action="store_true", help="go on after the rows in the file")
    arguments = parser.parse_args()
    place = Place(torch.device("cpu" if arguments.rehearse else "cuda"))
    torch.manual_seed(0)
    made: dict[str, Any] = {}

    def save(**more: Any) -> None:
        made.update(more)
        write_whole(arguments.out, json.dumps(made).encode())

    if arguments.resume:
        made = json.loads(arguments.out.read_text())
    else:
        save(cuda_library="; ".join(cuda.missing()) or cuda.build(), contests=[])
        save(floors=floors(place), small_calls=small_calls(place))
    for contest in CONTESTS[len(made["contests"]) :]:
        torch.compiler.reset()
        try:
            row = hold(contest(place), place)
        except Exception as error:
            row = {"op": contest.func.__name__, **contest.keywords, "failures": {"all": str(error)}}
            row = json.loads(json.dumps(row, default=str))
        made["contests"].append(row)
        save()
        print(line(row), flush=True)
        if not healthy(place.device):
            os.execv(sys.executable, [sys.executable, *sys.argv, "--resume"])
    if any(row["failures"] for row in made["contests"]):
        raise SystemExit("some back ends gave wrong results or none")


def line(row: dict[str, Any]) -> str:
    times = ", ".join(
        f"{name} {1e3 * each['median']:.3f}" for name, each in row.get("times", {}).items()
    )
    what = f"{row['op']} {row.get('shape', '')} {row.get('dtype', '')}"
    return f"{what}, ms: {times} {row['failures'] or ''}"


def healthy(device: torch.device) -> bool:
    """Whether the process can still use the device: an illegal access ends that."""
    try:
        synchronize(device)
    except RuntimeError:
        return False
    return True


if __name__ == "__main__":
    main()
