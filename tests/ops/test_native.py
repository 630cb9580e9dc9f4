"""What the native CPU library alone promises: equal bits, one OpenMP, an absence that is told."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sidfast import ops
from sidfast.base import native
from sidfast.testing.backends import instruction_set

ROOT = Path(__file__).resolve().parents[2]

needs_library = pytest.mark.skipif(bool(native.reasons()), reason="; ".join(native.reasons()))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
    )


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draws() -> list[Tensor]:
    """Every native random operator in every layout, on sizes that no vector or tile divides."""
    index = torch.tensor([3, -1, 2**40, 0, 7])
    sigma, scale = torch.linspace(0.1, 30, 5), torch.linspace(2, 0.2, 5)
    made = []
    for shape in ((5, 3, 37, 19), (5, 19, 5, 61), (5, 1)):
        where: dict[str, Any] = {"seed": -9, "index": index, "stream": 2**31, "backend": "native"}
        made += [ops.normal(shape, **where), ops.integers(shape, 2**32, **where)]
        made += [ops.uniform(shape, **where), ops.normal(shape, dtype=torch.float16, **where)]
        ramp = torch.linspace(-1, 1, math.prod(shape)).reshape(shape)
        formats = (torch.contiguous_format, torch.channels_last) if len(shape) == 4 else (None,)
        for stored in formats:
            source = ramp if stored is None else ramp.to(memory_format=stored)
            made.append(ops.dropout(source, 0.3, **where))
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                x = source.to(dtype)
                made += [
                    ops.add_noise(x, sigma, scale=scale, memory_format=out, **where)
                    for out in formats
                ]
    return made


def losses(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Losses and gradients on keyed operands, one sample of which is sick."""
    index = torch.arange(3 * shape[0]).reshape(3, -1)
    images, teacher, fake = (
        ops.normal(shape, seed=1, index=each, dtype=dtype, backend="native") for each in index
    )
    teacher[-1].view(-1)[-1] = torch.inf
    operands = [each.requires_grad_() for each in (images, teacher, fake)]
    where: dict[str, Any] = {"backend": "native"}
    key: dict[str, Any] = {**where, "seed": 3, "index": index[0]}
    sigma = torch.linspace(0.5, 50, shape[0])
    precond = (sigma, 1 / sigma, 0.5 - 1 / sigma)
    made = [
        ops.sid_loss(*operands, **where),
        ops.dsm_loss(images.detach(), fake, sigma, **where),
        ops.vsd_loss(*operands, sigma, **where),
        ops.sid_loss_raw(*operands, *precond, **key),
        ops.sid_loss_raw(*operands, *precond, noisy=images.detach() * 2, **where),
        ops.dsm_loss_raw(images.detach(), fake, *precond, **key),
    ]
    grads = [
        grad
        for loss in made
        for grad in torch.autograd.grad(loss.sum(), operands, allow_unused=True)
        if grad is not None
    ]
    return [*(loss.detach() for loss in made), *grads]


def everything() -> list[Tensor]:
    made = draws()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        made += losses((5, 3, 64, 64), dtype) + losses((2, 3, 111, 73), dtype)
    return made


@needs_library
def test_bits_do_not_depend_on_instruction_set_or_threads(restored_threads: None) -> None:
    results = []
    for isa in native.cpu_library().available_isas():
        with instruction_set(isa):
            for threads in (1, 2, 3, 5):
                torch.set_num_threads(threads)
                results.append(everything())
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            assert a.isfinite().all() and torch.equal(a, b)


@needs_library
def test_a_large_gradient_is_written_past_the_caches_alike() -> None:
    shape = (128, 3, 64, 64)
    whole = losses(shape, torch.float32)
    images, teacher, fake = (
        ops.normal(shape, seed=1, index=each, backend="native")
        for each in torch.arange(3 * 128).reshape(3, -1)
    )
    part = [x[5:8].clone().requires_grad_() for x in (images, teacher, fake)]
    loss = ops.sid_loss(*part, backend="native")
    assert torch.equal(loss, whole[0][5:8])
    for grad, large in zip(torch.autograd.grad(loss.sum(), part), whole[6:9], strict=True):
        assert torch.equal(grad, large[5:8])


@needs_library
def test_box_muller_over_millions_of_words() -> None:
    where: dict[str, Any] = {"seed": 4, "index": torch.arange(64), "backend": "native"}
    words = ops.integers((64, 2**16), 2**32, **where).view(-1, 2)
    noise = ops.normal((64, 2**16), **where).view(-1, 2).double()
    radius = torch.sqrt(-2 * torch.log(((words[:, 0] >> 8) + 1).double() * 2.0**-24))
    angle = (words[:, 1] >> 8).double() * (2 * math.pi * 2.0**-24)
    exact = radius[:, None] * torch.stack((angle.cos(), angle.sin()), dim=1)
    assert (noise - exact).abs().max() < 1e-6


@needs_library
def test_pages_hold_one_openmp_runtime() -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists() or not native.cpu_library().openmp:
        pytest.skip("no /proc or a build without OpenMP")
    done = python(
        "import sidfast, torch\n"
        "sidfast.ops.normal((2, 5), seed=0, index=torch.arange(2), backend='native')\n"
        "lines = open('/proc/self/maps').read().splitlines()\n"
        "print(*sorted({l.split()[-1] for l in lines if 'omp' in l.rsplit('/', 1)[-1]}))"
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1, done.stdout


@needs_library
def test_variable_chooses_the_instruction_set() -> None:
    code = "from sidfast.base import native; print(native.cpu_library().isa())"
    for isa in native.cpu_library().available_isas():
        done = python(code, SIDFAST_CPU_ISA=isa)
        assert done.stdout.strip() == isa, done.stderr
    done = python(code, SIDFAST_CPU_ISA="mmx")
    assert done.returncode != 0
    for part in ("SIDFAST_CPU_ISA", *native.cpu_library().available_isas(), "'mmx'"):
        assert part in done.stderr


def test_without_the_library_the_reference_serves_and_says_why() -> None:
    done = python(
        "import sys; sys.modules['sidfast.base._cpu'] = None\n"
        "import sidfast, torch\n"
        "where = dict(seed=0, index=torch.arange(2))\n"
        "print(sidfast.ops.normal((2, 5), **where).shape)\n"
        "sidfast.ops.normal((2, 5), **where, backend='native')"
    )
    assert "torch.Size([2, 5])" in done.stdout
    assert "BackendError" in done.stderr and "was not built" in done.stderr


@needs_library
def test_library_refuses_what_does_not_fit() -> None:
    library = native.cpu_library()
    index = torch.zeros(1, dtype=torch.int64)
    out = torch.empty(4)
    float32 = library.Dtype.float32
    with pytest.raises(ValueError, match="sizes"):
        library.normal(out.data_ptr(), float32, -1, 4, 0, index.data_ptr(), 0, 1)
    with pytest.raises(ValueError, match="stream"):
        library.normal(out.data_ptr(), float32, 1, 4, 0, index.data_ptr(), 2**32, 1)
    with pytest.raises(ValueError, match="high"):
        library.integers(index.data_ptr(), 2**32 + 1, 1, 1, 0, index.data_ptr(), 0, 1)
    with pytest.raises(ValueError, match="instruction set"):
        library.use_isa("mmx")
