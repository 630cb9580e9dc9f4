"""Keyed random numbers: the contract to the bit, their statistics, and what consumes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sidfast.base import philox
from sidfast.base.batch import spread
from sidfast.base.errors import BackendError, InputError
from sidfast.ops import Key, add_noise, dropout, integers, normal, random, uniform
from sidfast.testing.backends import instruction_set, places, skip_unless_served
from sidfast.testing.tensors import DTYPES, LAYOUTS, SHAPES, poisoned_memory, relative_error

ROOM = random
every_isa = pytest.mark.usefixtures("every_isa")

# Random123's published vectors for philox4x32 with 10 rounds: counter, key, output.
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]
# (seed, index, stream) at the edges of their ranges.
ADDRESSES = [
    (0, 0, 0),
    (1, 2, 3),
    (-1, 2**32 - 1, 2**32 - 1),
    (2**63 - 1, 2**32, 7 << 24),
    (-(2**63), -1, 2**31),
    (0x123456789ABCDEF, 2**63 - 1, 1),
]


def word(seed: int, index: int, stream: int, element: int) -> int:
    """The contract's word, in Python's unbounded integers."""
    mask = 2**32 - 1
    key = [seed & mask, (seed >> 32) & mask]
    c = [element >> 2, index & mask, (index >> 32) & mask, stream]
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            (second >> 32) ^ c[1] ^ key[0],
            second & mask,
            (first >> 32) ^ c[3] ^ key[1],
            first & mask,
        ]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    return c[element & 3]


def exact_normal(shape: tuple[int, ...], key: Key) -> Tensor:
    """The contract's unit normals in float64, from the reference's words."""
    return philox.normal64(torch.tensor(key.seed), key.index.cpu(), torch.Size(shape), key.stream)


def key_for(batch: int, device: str, *, seed: int = 11, stream: int = 5) -> Key:
    return Key(seed, torch.arange(100, 100 + batch, device=device), stream)


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(
    counter: list[int], key: list[int], output: list[int]
) -> None:
    words = philox.philox([torch.tensor(c) for c in counter], [torch.tensor(k) for k in key])
    assert [int(w) for w in words] == output


@every_isa
def test_first_words_are_a_published_answer(device: str, backend: str) -> None:
    index = torch.zeros(1, dtype=torch.int64, device=device)
    words = integers((1, 4), 2**32, seed=0, index=index, backend=backend)
    assert words[0].tolist() == KNOWN_ANSWERS[0][2]


@every_isa
@pytest.mark.parametrize(("seed", "index", "stream"), ADDRESSES)
def test_words_at_the_edges_of_every_range(
    device: str, backend: str, seed: int, index: int, stream: int
) -> None:
    size = 71
    samples = torch.tensor([index], device=device)
    words = [word(seed, index, stream, e) for e in range(size)]
    where: dict[str, Any] = {**Key(seed, samples, stream)._asdict(), "backend": backend}
    assert integers((1, size), 2**32, **where)[0].tolist() == words
    assert integers((1, size), 1000, **where)[0].tolist() == [w * 1000 >> 32 for w in words]
    assert uniform((1, size), **where)[0].tolist() == [(w >> 8) * 2.0**-24 for w in words]


@every_isa
@pytest.mark.parametrize("shape", SHAPES)
def test_normal_is_near_the_exact_transform(
    device: str, backend: str, shape: tuple[int, ...]
) -> None:
    key = key_for(shape[0], device)
    with poisoned_memory():
        noise = normal(shape, **key._asdict(), backend=backend)
    assert noise.shape == shape and noise.is_contiguous() and noise.dtype == torch.float32
    torch.testing.assert_close(noise.cpu().double(), exact_normal(shape, key), atol=4e-6, rtol=0)


@every_isa
@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_is_rounded_once(device: str, backend: str, dtype: torch.dtype) -> None:
    key = key_for(4, device)
    seed = torch.tensor(key.seed, device=device)
    skip_unless_served(ROOM, backend, "normal", seed, key.index, (4, 999), key.stream, dtype)
    noise = normal((4, 999), **key._asdict(), dtype=dtype, backend=backend)
    single = normal((4, 999), **key._asdict(), backend=backend)
    expected = exact_normal((4, 999), key) if dtype == torch.float64 else single.to(dtype)
    assert noise.dtype == dtype
    assert relative_error(noise, expected.to(device)) <= 1e-12


@every_isa
@pytest.mark.parametrize("draw", [normal, uniform, dropout, add_noise, integers])
def test_numbers_do_not_depend_on_the_batch(
    device: str, backend: str, draw: Callable[..., Tensor]
) -> None:
    shape = (6, 3, 7, 5)
    key = key_for(6, device)
    x, sigma = torch.ones(shape, device=device), torch.linspace(0.1, 2, 6, device=device)
    extra: dict[Any, Callable[[Tensor], tuple[Any, ...]]] = {
        normal: lambda rows: (x[rows].shape,),
        uniform: lambda rows: (x[rows].shape,),
        integers: lambda rows: (x[rows].shape, 1000),
        dropout: lambda rows: (x[rows], 0.5),
        add_noise: lambda rows: (x[rows], sigma[rows]),
    }

    def rows_of(rows: Tensor) -> Tensor:
        return draw(
            *extra[draw](rows),
            seed=torch.tensor(11, device=device),
            index=key.index[rows],
            stream=key.stream,
            backend=backend,
        )

    order = torch.tensor([5, 0, 3, 1, 4, 2], device=device)
    whole = rows_of(torch.arange(6, device=device))
    assert torch.equal(rows_of(order), whole[order])
    assert torch.equal(torch.cat([rows_of(part) for part in order.split([1, 3, 2])]), whole[order])


def test_index_may_be_a_view_with_gaps(device: str, backend: str) -> None:
    gaps = torch.arange(40, device=device)[::2]
    options = {"seed": 3, "backend": backend}
    for draw in (normal, uniform):
        shape = (20, 500)
        expected = draw(shape, index=gaps.clone(), **options)
        assert torch.equal(draw(shape, index=gaps, **options), expected)
    x, sigma = torch.randn(20, 500, device=device), torch.ones(20, device=device)
    expected = add_noise(x, sigma, index=gaps.clone(), **options)
    assert torch.equal(add_noise(x, sigma, index=gaps, **options), expected)
    expected = dropout(x, 0.3, index=gaps.clone(), **options)
    assert torch.equal(dropout(x, 0.3, index=gaps, **options), expected)


@every_isa
def test_numbers_do_not_depend_on_the_threads(device: str, backend: str) -> None:
    key = key_for(16, device)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(normal((16, 3, 64, 64), **key._asdict(), backend=backend))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_normals_have_the_same_bits_on_every_instruction_set() -> None:
    key = key_for(3, "cpu")
    draws = []
    for place in places(ROOM, every_isa=True):
        if place.isa:
            with instruction_set(place.isa):
                draws.append(normal((3, 4, 1001), **key._asdict(), backend=place.backend))
    assert all(torch.equal(draw, draws[0]) for draw in draws[1:])


def test_shifted_key_is_the_next_stream(device: str, backend: str) -> None:
    key = key_for(2, device, stream=8)
    assert key.shift(3) == (key.seed, key.index, 11)
    one = uniform((2, 9), **key.shift(1)._asdict(), backend=backend)
    assert torch.equal(one, uniform((2, 9), seed=11, index=key.index, stream=9, backend=backend))


def kolmogorov(sorted_cdf: Tensor) -> float:
    """Kolmogorov and Smirnov's distance times sqrt(n); above 1.95 once in a thousand."""
    n = len(sorted_cdf)
    steps = torch.arange(n + 1, device=sorted_cdf.device) / n
    distance = torch.maximum((steps[1:] - sorted_cdf).max(), (sorted_cdf - steps[:-1]).max())
    return distance.item() * math.sqrt(n)


@every_isa
def test_distributions(device: str, backend: str) -> None:
    key, n = key_for(64, device), 64 * 4096
    noise = normal((64, 4096), **key._asdict(), backend=backend).double().flatten()
    assert noise.abs().max() <= 5.77
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((noise**power).mean().item() - moment) < 4 * math.sqrt(variance / n)
    assert kolmogorov(torch.special.ndtr(noise.sort().values)) < 1.95
    flat = uniform((64, 4096), **key._asdict(), backend=backend).double().flatten()
    assert kolmogorov(flat.sort().values) < 1.95
    counts = integers((64, 4096), 10, **key._asdict(), backend=backend).flatten().bincount()
    assert len(counts) == 10
    assert ((counts - n / 10) ** 2 / (n / 10)).sum() < 27.9  # chi-square, 9 degrees, .001


def test_independence(device: str, backend: str) -> None:
    key = key_for(64, device)
    noise = normal((64, 4096), **key._asdict(), backend=backend).double()
    other_stream = normal((64, 4096), **key.shift(1)._asdict(), backend=backend).double()
    other_seed = normal((64, 4096), seed=12, index=key.index, stream=5, backend=backend).double()
    pairs = [(noise, other_stream), (noise, other_seed), (noise[1:], noise[:-1])]
    pairs += [(noise[:, lag:], noise[:, :-lag]) for lag in (1, 2, 3, 4, 64)]
    for a, b in pairs:
        for power in (1, 2):
            table = torch.stack(((a**power).flatten(), (b**power).flatten()))
            assert abs(torch.corrcoef(table)[0, 1].item()) < 4 / math.sqrt(a.numel())


@every_isa
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_add_noise_over_shapes_and_layouts(
    device: str, backend: str, shape: tuple[int, ...]
) -> None:
    for layout in LAYOUTS:
        check_add_noise(device, backend, shape, layout, torch.float32, None, None, scaled=True)


@every_isa
@pytest.mark.parametrize("memory_format", [None, torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("out", [None, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_add_noise_over_dtypes_and_formats(
    device: str,
    backend: str,
    dtype: torch.dtype,
    out: torch.dtype | None,
    memory_format: torch.memory_format | None,
) -> None:
    for layout in ("contiguous", "channels_last"):
        for scaled in (False, True):
            check_add_noise(
                device, backend, (3, 4, 17, 5), layout, dtype, out, memory_format, scaled
            )


def check_add_noise(
    device: str,
    backend: str,
    shape: tuple[int, ...],
    layout: str,
    dtype: torch.dtype,
    out: torch.dtype | None,
    memory_format: torch.memory_format | None,
    scaled: bool,
) -> None:
    torch.manual_seed(0)
    key = key_for(shape[0], device)
    x = LAYOUTS[layout](torch.randn(shape, device=device).to(dtype)).requires_grad_()
    sigma = torch.rand(shape[0], device=device) * 3
    scale = torch.rand(shape[0], device=device) if scaled else None
    seed = torch.tensor(key.seed, device=device)
    format_or_own = memory_format or torch.preserve_format
    skip_unless_served(
        ROOM, backend, "add_noise", x, sigma, scale, seed, key.index, 0, out or dtype, format_or_own
    )
    with poisoned_memory():
        noisy = add_noise(
            x,
            sigma,
            **key._asdict(),
            scale=scale,
            dtype=out,
            memory_format=memory_format,
            backend=backend,
        )
    like = torch.empty_like(x, dtype=out, memory_format=format_or_own)
    assert noisy.stride() == like.stride() and noisy.dtype == like.dtype

    factor = spread(torch.ones_like(sigma) if scale is None else scale, x).double()
    noise = exact_normal(shape, key).to(device)
    exact = factor * (x.detach().double() + spread(sigma, x).double() * noise)
    precision = torch.finfo(torch.float32 if noisy.dtype == torch.float64 else noisy.dtype).eps
    torch.testing.assert_close(noisy.double(), exact, rtol=precision, atol=1.5e-5)
    upstream = torch.randn_like(noisy)
    (grad,) = torch.autograd.grad(noisy, x, upstream)
    assert grad.dtype == x.dtype
    precision = max(torch.finfo(noisy.dtype).eps, torch.finfo(dtype).eps)
    assert relative_error(grad, upstream.double() * factor) <= precision


@every_isa
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_keeps_by_word(
    device: str, backend: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    for layout in LAYOUTS:
        check_dropout(device, backend, dtype, shape, layout)


def check_dropout(
    device: str, backend: str, dtype: torch.dtype, shape: tuple[int, ...], layout: str
) -> None:
    torch.manual_seed(0)
    key, p = key_for(shape[0], device), 0.13
    x = LAYOUTS[layout](torch.randn(shape, device=device).to(dtype)).requires_grad_()
    seed = torch.tensor(key.seed, device=device)
    skip_unless_served(ROOM, backend, "dropout", x, p, seed, key.index, key.stream)
    with poisoned_memory():
        dropped = dropout(x, p, seed=seed, index=key.index, stream=key.stream, backend=backend)
    assert dropped.stride() == torch.empty_like(x).stride() and dropped.dtype == dtype
    kept = integers(shape, 2**32, **key._asdict(), backend=backend) >= round(p * 2**32)
    expected = torch.where(kept, x.detach().double() / (1 - p), 0)
    assert relative_error(dropped, expected) <= torch.finfo(dtype).eps
    upstream = torch.randn_like(dropped)
    (grad,) = torch.autograd.grad(dropped, x, upstream)
    assert grad.dtype == dtype
    expected = torch.where(kept, upstream.double() / (1 - p), 0)
    assert relative_error(grad, expected) <= torch.finfo(dtype).eps


def test_dropout_of_nothing_is_the_input(device: str, backend: str) -> None:
    x = torch.randn(2, 3, device=device)
    assert dropout(x, 0.0, **key_for(2, device)._asdict(), backend=backend) is x


def test_gradients_of_every_order() -> None:
    key = {**key_for(3, "cpu")._asdict(), "backend": "reference"}
    sigma, scale = torch.rand(3), torch.rand(3)
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)

    def noisy_dropped(x: Tensor) -> Tensor:
        noisy = add_noise(x.sin(), sigma, **key, scale=scale)
        return dropout(noisy, 0.4, **key)

    assert torch.autograd.gradcheck(noisy_dropped, (x,))
    assert torch.autograd.gradgradcheck(noisy_dropped, (x,))


def test_opcheck(device: str, backend: str) -> None:
    ops = torch.ops.sidfast
    index, seed = torch.arange(3, device=device), torch.tensor(5, device=device)
    sigma = torch.rand(3, device=device)
    x = torch.randn(3, 2, 5, 4, device=device, requires_grad=True)
    channels_last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    preserve = torch.preserve_format
    calls = [
        (ops.normal, (seed, index, (3, 5), 1, torch.float32)),
        (ops.uniform, (seed, index, (3, 5), 1, torch.float32)),
        (ops.integers, (seed, index, (3, 5), 10, 1)),
        (ops.add_noise, (x, sigma, None, seed, index, 1, torch.float32, preserve)),
        (ops.add_noise, (channels_last, sigma, sigma, seed, index, 1, torch.float16, preserve)),
        (ops._add_noise, (x.detach(), sigma, None, seed, index, 1, torch.float32, preserve)),
        (ops._dropout, (x.detach(), 0.3, seed, index, 1)),
        (ops.dropout, (x, 0.3, seed, index, 1)),
        (ops.dropout, (channels_last, 0.3, seed, index, 1)),
    ]
    for op, args in calls:
        torch.library.opcheck(op.default, (*args, backend))


def test_one_graph_serves_every_batch(device: str, backend: str) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    def noisy(x: Tensor, sigma: Tensor, seed: Tensor, index: Tensor) -> Tensor:
        key = Key(seed, index, 3)
        where: dict[str, Any] = {**key._asdict(), "backend": backend}
        level = sigma * uniform((x.shape[0],), **where) + integers((x.shape[0],), 3, **where)
        x = x + normal(x.shape, **where)
        x = dropout(x, 0.2, **{**where, "stream": key.shift(2).stream})
        return add_noise(x, level, **where, scale=sigma, memory_format=torch.channels_last)

    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(noisy, fullgraph=True, backend=counter)
    for batch in (2, 3, 5, 8):
        x = torch.randn(batch, 3, 4, 4, device=device, requires_grad=True)
        sigma = torch.rand(batch, device=device)
        seed = torch.tensor(batch, device=device)
        index = torch.arange(batch, device=device)
        results = [function(x, sigma, seed, index) for function in (compiled, noisy)]
        gradients = [torch.autograd.grad(result.square().sum(), x)[0] for result in results]
        torch.testing.assert_close(results[0], results[1])
        torch.testing.assert_close(gradients[0], gradients[1])
        assert results[0].stride() == results[1].stride()
    assert counter.frame_count <= 2


INDEX = torch.arange(2)
X = torch.zeros(2, 3)
SIGMA = torch.ones(2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: normal((3, 4), seed=0, index=INDEX), "len(index) = 2"),
        (lambda: normal((), seed=0, index=INDEX), "len(index) = 2"),
        (lambda: normal((2, 2**35), seed=0, index=INDEX), "2^34"),
        (lambda: normal((2,), seed=2**63, index=INDEX), "seed in"),
        (lambda: normal((2,), seed=torch.zeros(1), index=INDEX), "0-d int64"),
        (lambda: normal((2,), seed=0, index=INDEX.int()), "torch.int32"),
        (lambda: normal((2,), seed=0, index=INDEX, stream=2**32), "stream in"),
        (lambda: normal((2,), seed=0, index=INDEX, dtype=torch.int32), "torch.int32"),
        (lambda: uniform((2,), seed=0, index=INDEX, dtype=torch.float16), "torch.float16"),
        (lambda: integers((2,), 0, seed=0, index=INDEX), "high"),
        (lambda: add_noise(X.int(), SIGMA, seed=0, index=INDEX), "torch.int32"),
        (lambda: add_noise(X, SIGMA.double(), seed=0, index=INDEX), "torch.float64"),
        (lambda: add_noise(X, torch.ones(3), seed=0, index=INDEX), "shape (2,)"),
        (lambda: add_noise(X, torch.ones(1, 2), seed=0, index=INDEX), "shape (2,)"),
        (lambda: add_noise(X, SIGMA.clone().requires_grad_(), seed=0, index=INDEX), "detach()"),
        (lambda: add_noise(X, SIGMA, seed=0, index=INDEX.to("meta")), "one device"),
        (
            lambda: add_noise(X, SIGMA, seed=0, index=INDEX, memory_format=torch.channels_last),
            "four dimensions",
        ),
        (lambda: dropout(X, 1.0, seed=0, index=INDEX), "0 <= p < 1"),
        (lambda: normal((2,), seed=0, index=[0, 1]), "index as a torch.Tensor, got list"),
        (lambda: dropout(X, 0.5, seed=0, index=[0, 1]), "index as a torch.Tensor, got list"),
        (lambda: add_noise(X.numpy(), SIGMA, seed=0, index=INDEX), "got ndarray"),
        (lambda: add_noise(X, 0.5, seed=0, index=INDEX), "sigma as a torch.Tensor, got float"),
    ],
)
def test_bad_input_is_named(call: Callable[[], Tensor], words: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert words in str(error.value) and "expected" in str(error.value)


def test_unknown_back_end_is_refused_with_the_table() -> None:
    with pytest.raises(BackendError, match=r"'cuda-magic'.*native: .*reference: can serve"):
        normal((2, 4), seed=0, index=INDEX, backend="cuda-magic")
