"""What the CUDA kernels alone promise: a CPU's bits, every path through a sample, reasons."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sidfast import ops
from sidfast.base import cuda, native
from sidfast.ops.score_losses import reference
from sidfast.testing import cuda_emulator
from sidfast.testing.tensors import poisoned_memory, relative_error

ROOT = Path(__file__).resolve().parents[2]
ALPHA, FLOOR, SIGMA_DATA = 1.2, 1e-5, 0.5
ERROR = 1.2e-6  # of noise in float32; test_score_losses.py allows less where there is none

# Sizes of samples for every path that they take where there are clusters.
SIZES = {
    "one block": (3, 32, 32),
    "cluster of 4": (3, 64, 64),
    "cluster of 8, ragged": (8, 2441),
    "cluster of 8, full": (3, 128, 256),
    "chunks": (6, 128, 129),
    "chunks that no access divides": (3, 97, 99),
}

needs_library = pytest.mark.skipif(bool(native.reasons()), reason="; ".join(native.reasons()))
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def kernels() -> Iterator[None]:
    """The CUDA back ends on CPU tensors."""
    if cuda_emulator.missing():
        pytest.skip(cuda_emulator.missing())
    with cuda_emulator.emulated():
        yield


@needs_library
@pytest.mark.parametrize("shape", [(3, 3, 8, 10), (2, 4, 6, 6), (2, 20, 8, 8), (2, 5, 4, 4)])
def test_noise_has_the_bits_of_a_cpu(kernels: None, shape: tuple[int, ...]) -> None:
    where: dict[str, Any] = {"seed": -9, "index": torch.tensor([3, -1, 2**40])[: shape[0]]}
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    formats = (torch.contiguous_format, torch.channels_last)
    x, sigma = torch.randn(shape), torch.linspace(0.1, 30, shape[0])

    def draws(backend: str) -> list[Tensor]:
        made = [ops.normal(shape, dtype=dtype, **where, backend=backend) for dtype in dtypes]
        made += [ops.uniform(shape, **where, backend=backend)]
        made += [ops.integers(shape, 2**32, **where, backend=backend)]
        for dtype, stored in itertools.product(dtypes, formats):
            source = x.to(dtype, memory_format=stored)
            made.append(ops.dropout(source, 0.3, **where, backend=backend))
            made += [
                ops.add_noise(
                    source, sigma, scale=1 / sigma, dtype=out, memory_format=to, **where,
                    backend=backend,
                )
                for out, to in itertools.product(dtypes, formats)
            ]  # fmt: skip
        return made

    with poisoned_memory():
        pairs = zip(draws("cuda"), draws("native"), strict=True)
        for ours, native_draw in pairs:
            assert torch.equal(ours, native_draw) and ours.stride() == native_draw.stride()


def operands(shape: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    noise = [torch.randn(tuple(shape), generator=generator) for _ in range(3)]
    teacher = noise[0] + 0.3 * noise[1]
    return [each.to(dtype) for each in (noise[0], teacher, teacher + 0.05 * noise[2])]


def assert_near(actual: Tensor, exact: Tensor) -> None:
    assert torch.equal(actual.isnan(), exact.isnan())
    actual, exact = actual.nan_to_num(), exact.nan_to_num()
    rounding = 0.0 if actual.dtype == torch.float32 else torch.finfo(actual.dtype).eps / 2
    assert relative_error(actual, exact) <= ERROR + rounding


def check_losses(size: Sequence[int], dtype: torch.dtype, image_dtype: torch.dtype) -> None:
    """Every loss with a sick last element, against float64, and again for equal bits."""
    values = operands((3, *size), dtype)
    values[1][1].view(-1)[-1] = torch.inf
    images = values[0].to(image_dtype)
    stored = [*values, images, images * 1.5]
    sigma = torch.tensor([0.5, 2.0, 10.0])
    c_skip, c_out = 0.25 / (sigma**2 + 0.25), 0.5 * sigma / (sigma**2 + 0.25).sqrt()
    key, none = (torch.tensor(-3), torch.arange(3) + 2**40, 5), (None, None, 0)
    need = (True, False, True, True)

    def losses(wide: bool, rows: slice = slice(None)) -> list[Tensor]:
        """Of `rows` alone, by the operators or, in float64, by their definition."""
        x, teacher, fake, own, noisy = ((each.double() if wide else each)[rows] for each in stored)
        at, seed, index = (sigma[rows], key[0], key[1][rows])
        folded = (c_skip[rows], c_out[rows])
        raw = [(None, at, seed, index, key[2], *folded), (noisy, at, *none, *folded)]
        calls: dict[str, list[tuple[Any, ...]]] = {
            "sid_loss": [(x, teacher, fake, ALPHA, FLOOR)],
            "sid_loss_grads": [(x, teacher, fake, ALPHA, FLOOR, 3.0, need[:3])],
            "vsd_loss_grad": [(x, teacher, fake, 1 / at, FLOOR, 1e-6, 3.0)],
            "dsm_loss_grad": [(x, teacher, at, SIGMA_DATA, 3.0)],
            "sid_loss_raw": [(own, teacher, fake, *each, ALPHA, FLOOR) for each in raw],
            "sid_loss_raw_grads": [
                (own, teacher, fake, *each, ALPHA, FLOOR, 3.0, (*need[:3], each[0] is not None))
                for each in raw
            ],
            "dsm_loss_raw_grad": [(own, teacher, *each, SIGMA_DATA, 3.0) for each in raw],
        }
        made = []
        for name, arguments in calls.items():
            for given in arguments:
                if wide:
                    made += getattr(reference, name)(*given)
                else:
                    made += getattr(torch.ops.sidfast, f"_{name}")(*given, "cuda")
        return made

    with poisoned_memory():
        first, second = losses(False), losses(False)
    for ours, again, exact in zip(first, second, losses(True), strict=True):
        assert torch.equal(ours.nan_to_num(), again.nan_to_num()) and ours.shape == exact.shape
        assert not ours.numel() or not ours[1].nan_to_num().any()
        assert_near(ours, exact)
    assert torch.equal(first[0], first[2])
    for alone, ours in zip(losses(False, slice(2, 3)), first, strict=True):
        assert torch.equal(alone, ours[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_losses_on_every_path(kernels: None, size: tuple[int, ...], dtype: torch.dtype) -> None:
    check_losses(size, dtype, dtype)


def test_images_and_raw_outputs_of_two_types(kernels: None) -> None:
    check_losses((3, 32, 32), torch.bfloat16, torch.float32)
    check_losses((6, 128, 129), torch.float16, torch.float32)


@pytest.mark.skipif(bool(cuda_emulator.missing()), reason=cuda_emulator.missing())
def test_losses_without_clusters() -> None:
    """An sm_80, in a process of its own, since a device keeps its architecture."""
    code = (
        "import torch\n"
        "from sidfast.testing import cuda_emulator\n"
        "from tests.ops.test_cuda import check_losses\n"
        "with cuda_emulator.emulated():\n"
        "    library = cuda_emulator.library()\n"
        "    assert library.workspace(library.Dtype.float32, 1, 12288, -1) == 0\n"
        "    assert library.workspace(library.Dtype.float32, 1, 12292, -1) > 0\n"
        "    for dtype in (torch.float32, torch.bfloat16):\n"
        "        check_losses((3, 64, 64), dtype, dtype)\n"
        "    check_losses((4, 64, 64), torch.float32, torch.float32)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SIDFAST_EMULATED_ARCH": "80"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_views_that_begin_between_accesses(kernels: None) -> None:
    values = operands((3, 3, 8, 8), torch.float32)
    shifted = []
    for value in values:
        room = torch.empty(value.numel() + 1)
        room[1:] = value.flatten()
        shifted.append(room[1:].view_as(value))
    (loss, _), (of_shifted, _) = (
        torch.ops.sidfast._sid_loss(*each, ALPHA, FLOOR, "cuda") for each in (values, shifted)
    )
    assert torch.equal(loss, of_shifted)
    where: dict[str, Any] = {"seed": 1, "index": torch.arange(3), "backend": "cuda"}
    for to in (torch.contiguous_format, torch.channels_last):
        results = [
            ops.add_noise(x, torch.ones(3), memory_format=to, **where)
            for x in (values[0], shifted[0])
        ]
        assert torch.equal(*results)


def test_library_refuses_what_does_not_fit(kernels: None) -> None:
    library = cuda.library()
    index = torch.zeros(1, dtype=torch.int64)
    key = (index.data_ptr(), index.data_ptr())
    out = torch.empty(4)
    float32 = library.Dtype.float32
    with pytest.raises(ValueError, match="sizes"):
        library.normal(out.data_ptr(), float32, -1, 4, *key, 0, 0, 0)
    with pytest.raises(ValueError, match="stream"):
        library.normal(out.data_ptr(), float32, 1, 4, *key, 2**32, 0, 0)
    with pytest.raises(ValueError, match="device"):
        library.normal(out.data_ptr(), float32, 1, 4, *key, 0, 0, 7)
    with pytest.raises(ValueError, match="high"):
        library.integers(index.data_ptr(), 2**32 + 1, 1, 1, *key, 0, 0, 0)


@pytest.mark.parametrize(
    ("architectures", "driver", "capability", "words"),
    [
        ("sm_80 sm_90 compute_90", 13000, (9, 0), ""),
        ("sm_80 sm_90 compute_90", 13020, (8, 6), ""),
        ("sm_80 sm_90 compute_90", 13000, (12, 0), ""),
        ("sm_80 sm_90 compute_90", 13000, (7, 5), "cuda:0 is sm_75"),
        ("sm_90", 13000, (10, 0), "cuda:0 is sm_100"),
        ("sm_90 compute_90", 12080, (9, 0), "13.0, but the driver serves up to 12.8"),
    ],
)  # fmt: skip
def test_reasons_name_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
    architectures: str,
    driver: int,
    capability: tuple[int, int],
    words: str,
) -> None:
    library = SimpleNamespace(architectures=architectures, versions=lambda: (13000, driver))
    monkeypatch.setattr(cuda, "_load", lambda: (library, ""))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    cuda._unfit.cache_clear()
    reasons = cuda._unfit(torch.device("cuda:0"))
    cuda._unfit.cache_clear()
    assert words in "; ".join(reasons) and bool(reasons) == bool(words)


@pytest.mark.gpu
@needs_gpu
def test_captured_graph_draws_from_the_key_it_finds() -> None:
    index = torch.arange(4, device="cuda")
    seed = torch.tensor(1, device="cuda")
    x, sigma = torch.randn(4, 3, 64, 64, device="cuda"), torch.ones(4, device="cuda")

    def noisy_loss() -> tuple[Tensor, Tensor]:
        noisy = ops.add_noise(x, sigma, seed=seed, index=index, backend="cuda")
        return noisy, ops.sid_loss(x, noisy, 0.5 * noisy, backend="cuda")

    noisy_loss()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = noisy_loss()
    seed.fill_(2)
    index.add_(10)
    graph.replay()
    for ours, now in zip(captured, noisy_loss(), strict=True):
        assert torch.equal(ours, now)
