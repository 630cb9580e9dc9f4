"""Triton kernels without a GPU: interpreted, on the operators' own tests, and far addresses.

`TRITON_INTERPRET` is read when a kernel is decorated, hence a process of its own.
"""

from __future__ import annotations

import itertools
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sidfast.base.errors import BackendError
from sidfast.base.philox import philox
from sidfast.ops import normal, score_losses, sid_loss
from sidfast.testing.tensors import INTERPRETED

ROOT = Path(__file__).resolve().parents[2]
interpreted = pytest.mark.skipif(not INTERPRETED, reason="compiled kernels need a GPU")
as_usual = pytest.mark.skipif(INTERPRETED, reason="kernels are interpreted")

# Words are bit-equal to the reference's, so their statistics need no second look, and neither do
# registration and defaults, which no kernel sees.
SLOW = "distributions or independence or depend_on_the_threads or opcheck or one_graph or None"
FILES = [
    ("score_losses_raw",),
    ("score_losses", "score_losses_vsd"),
    ("random", "triton"),
    ("adam_ema",),
]
CHOSEN = f"(cpu-triton or far_elements or several_steps) and not ({SLOW})"


def triton_or_skip() -> None:
    pytest.importorskip("triton", reason="triton is not installed")


def python(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        env={**os.environ, **environment},
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=1800,
    )


@as_usual
@pytest.mark.long
@pytest.mark.parametrize("files", FILES, ids=" ".join)
def test_interpreted_kernels_pass(files: tuple[str, ...]) -> None:
    triton_or_skip()
    paths = [f"tests/ops/test_{file}.py" for file in files]
    options = ("-p", "no:cacheprovider", "-p", "no:xdist", "-k", CHOSEN)
    done = python("-m", "pytest", *options, *paths, TRITON_INTERPRET="1")
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr


@as_usual
def test_without_a_gpu_it_says_so() -> None:
    triton_or_skip()
    index = torch.arange(2)
    with pytest.raises(BackendError, match="triton: serves CUDA tensors only"):
        normal((2, 5), seed=0, index=index, backend="triton")
    with pytest.raises(BackendError, match="triton: serves CUDA tensors only"):
        sid_loss(*torch.ones(3, 2, 5), backend="triton")


@as_usual
def test_without_triton_it_says_so() -> None:
    done = python(
        "-c",
        "import sys; sys.modules['triton'] = None\n"
        "import sidfast, torch\n"
        "sidfast.ops.normal((2, 5), seed=0, index=torch.arange(2), backend='triton')",
    )
    assert "BackendError" in done.stderr and "triton: sidfast.ops.random._triton" in done.stderr


@interpreted
def test_far_elements_and_addresses() -> None:
    """Offsets beyond 2^31 elements, in memory of which only the pages looked at exist."""
    from sidfast.ops.random import _triton

    samples, channels, pixels = 2, 3, 2**31 + 64
    length = samples * channels * pixels * 2
    no_reserve = 0x4000
    memory = mmap.mmap(-1, 2 * length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)

    def at(place: int, count: int = 1) -> Tensor:
        return torch.frombuffer(memory, dtype=torch.bfloat16, count=count, offset=2 * place)

    planes = [(b, c, (b * channels + c) * pixels) for b in range(samples) for c in range(channels)]
    for _, _, start in planes:
        at(start, 256).fill_(1)
    seed, index = torch.tensor(3), torch.tensor([-7, 2**40])
    out = samples * channels * pixels
    _triton._dropout_kernel[(samples,)](
        at(0),
        at(out),
        seed,
        index,
        5,
        2**31,
        2.0,
        samples,
        channels,
        pixels,
        1,
        ROWS=4,
        COUNTERS=64,
        WHOLE_COUNTERS=True,
        X_LAST=False,
        OUT_LAST=True,
    )
    for sample, channel, _ in planes:
        element = channel * pixels + torch.arange(256)
        number, mask = index[sample], 0xFFFFFFFF
        counter = (element >> 2, number & mask, number >> 32 & mask, torch.tensor(5))
        blocks = torch.stack(philox(counter, (seed & mask, seed >> 32 & mask)))
        words = blocks.gather(0, (element & 3)[None])[0]
        made = at(out + sample * channels * pixels, 256 * channels)[channel::channels]
        assert torch.equal(made != 0, words >= 2**31)


@interpreted
def test_parts_of_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of more parts than are added up together, made small."""
    from sidfast.ops.score_losses import _triton

    shape = (2, 999)
    index = torch.arange(6).view(3, 2)
    operands = [normal(shape, seed=1, index=each).requires_grad_() for each in index]
    with torch.no_grad():
        operands[2][1, -1] = torch.nan
    sigma = torch.tensor([0.5, 2.0])

    def losses(backend: str) -> list[Tensor]:
        where: dict[str, Any] = {"backend": backend}
        key: dict[str, Any] = {"seed": 3, "index": index[0], **where}
        images, _, fake = operands
        folded = (sigma, 0.25 / (sigma**2 + 0.25), 0.5 * sigma / (sigma**2 + 0.25).sqrt())
        calls = [
            (score_losses.sid_loss(*operands, **where), operands),
            (score_losses.sid_loss_raw(*operands, *folded, **key), operands),
            (score_losses.vsd_loss(*operands, sigma, **where), [images]),
            (score_losses.dsm_loss(images.detach(), fake, sigma, **where), [fake]),
            (score_losses.dsm_loss_raw(images.detach(), fake, *folded, **key), [fake]),
        ]
        grads = [torch.autograd.grad(loss.sum(), wanted) for loss, wanted in calls]
        return [*(loss.detach() for loss, _ in calls), *itertools.chain(*grads)]

    monkeypatch.setattr(_triton, "_RESIDENT", 64)
    monkeypatch.setattr(_triton, "_PART", 64)
    monkeypatch.setattr(_triton, "_MOST_PARTS", 8)
    assert _triton._cut(shape[1], "denoised", 1)[1]["STEPS"] == 2
    for ours, exact in zip(losses("triton"), losses("reference"), strict=True):
        assert not ours[1].any() and ours[0].any()
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=2e-5)
