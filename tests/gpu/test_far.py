"""Tensors of more than 2^31 elements: what lies beyond is what it is alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sidfast import ops
from sidfast.base.philox import philox
from sidfast.testing.operators import BACKENDS, OPERATORS, Inputs, served

GIB = 2**30
NEEDED = 56 * GIB
BATCH, SAMPLE = 9, (4, 2**13, 2**13)  # 9 * 2^28 elements


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    free, _ = torch.cuda.mem_get_info()
    if free < NEEDED:
        pytest.skip(f"needs {NEEDED / GIB:.0f} GiB of device memory, {free / GIB:.0f} are free")
    yield
    torch.cuda.empty_cache()


def batch() -> Inputs:
    """bfloat16 images; whatever fills them differs from sample to sample."""
    index = torch.arange(BATCH, device="cuda")
    images, teacher, fake = (
        ops.normal((BATCH, *SAMPLE), seed=n, index=index, dtype=torch.bfloat16) for n in range(3)
    )
    sigma, seed = torch.linspace(0.5, 2, BATCH, device="cuda"), torch.tensor(3, device="cuda")
    return Inputs(images, teacher, fake, sigma, seed, index)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name in OPERATORS if OPERATORS[name].wants])
def test_the_last_sample_of_a_large_batch(name: str, backend: str) -> None:
    operator, inputs = served(name, backend), batch()
    for wanted in operator.wants:
        getattr(inputs, wanted).requires_grad_()
    last = Inputs(
        *(
            each
            if each.dim() == 0
            else each[-1:].detach().clone().requires_grad_(each.requires_grad)
            for each in inputs
        )
    )
    for whole, alone in zip(
        operator.results(inputs, backend), operator.results(last, backend), strict=True
    ):
        assert torch.equal(whole[-1:], alone)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("draw", ["normal", "uniform", "integers"])
def test_the_last_numbers_of_a_large_batch(draw: str, backend: str) -> None:
    operator, index = served(draw, backend), torch.arange(BATCH, device="cuda")
    like = torch.empty(BATCH, 2**28, device="meta")
    key = (torch.ones((), device="cuda"), torch.tensor(3, device="cuda"))
    whole = operator.forward(Inputs(like, like, like, *key, index), backend)
    alone = operator.forward(Inputs(like[-1:], like, like, *key, index[-1:]), backend)
    assert torch.equal(whole[-1:], alone)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_last_elements_of_a_large_sample(
    backend: str, memory_format: torch.memory_format
) -> None:
    """Beyond 2^31 elements of one sample, against words from their own addresses."""
    served("dropout", backend)
    channels, height, width = 4, 2**14, 2**15 + 64
    x = torch.ones(1, channels, height, width, device="cuda", dtype=torch.bfloat16)
    x = x.contiguous(memory_format=memory_format)
    seed, index = torch.tensor(3, device="cuda"), torch.tensor([2**40 - 7], device="cuda")
    dropped = ops.dropout(x, 0.5, seed=seed, index=index, stream=5, backend=backend)
    element = torch.arange(x.numel() - 4096, x.numel(), device="cuda")
    mask = 0xFFFFFFFF
    stream = torch.tensor(5, device="cuda")
    counter = (element >> 2, index & mask, index >> 32 & mask, stream)
    blocks = torch.stack(philox(counter, (seed & mask, seed >> 32 & mask)))
    words = blocks.gather(0, (element & 3)[None])[0]
    assert torch.equal(dropped[0, -1, -1, -4096:] != 0, words >= 2**31)
