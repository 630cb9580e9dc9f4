"""One iteration of the digits demo against the same written plainly in eager torch.

Two rivals, a row each: one has nothing of ours, its networks' group norms are torch's; the other is
the same plain loop around networks with our group norm, which leaves the loop alone to compare.
A rival runs in a process of its own, because ours changes how the C library keeps memory, which
would speed it up too; the two still take turns.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from conftest import THREADS, Case
from plain import PlainDistiller, plain_sid_loss

from sidfast import Distiller, recipes
from sidfast.base import native
from sidfast.steps import KeyedDraws, Networks, generator_loss
from sidfast.teachers import digits

CONFIG = recipes.digits()
# Name of a rival, and whether its networks may use our compiled library.
RIVALS = {"all in eager torch": False, "the plain loop around our networks": True}


def plain_iterations(pipe: Connection, threads: int, kernels: bool) -> None:
    """Make an iteration for every message; answer with the seconds that it took."""
    if not kernels:
        native._load = lambda: (None, "left out")  # type: ignore[assignment]
    torch.set_num_threads(threads)
    plain = PlainDistiller(digits(), CONFIG)
    while pipe.recv():
        start = time.perf_counter()
        plain.step()
        pipe.send(time.perf_counter() - start)


@pytest.fixture(params=RIVALS)
def rival(request: pytest.FixtureRequest, threads: int) -> Iterator[tuple[str, Connection]]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=plain_iterations, args=(there, threads, RIVALS[request.param]), daemon=True
    )
    process.start()
    yield request.param, here
    here.send(False)
    process.join()


def gradient_error() -> float:
    """Relative L2 distance of our generator gradient from the plain formula's in float64."""
    networks = Networks.from_teacher(digits())
    with torch.no_grad():
        for parameter in networks.fake.parameters():
            parameter.mul_(1.01)
    draws = KeyedDraws("GENERATOR", torch.tensor(0), torch.arange(16))
    parameters = list(networks.generator.parameters())
    ours = torch.autograd.grad(generator_loss(networks, draws, CONFIG).sum(), parameters)

    for network in vars(networks).values():
        network.double()
    z = draws.latents((1, 8, 8))
    u = draws.level("uniform").double()
    low, high = CONFIG.sigma_min ** (1 / CONFIG.rho), CONFIG.sigma_max ** (1 / CONFIG.rho)
    sigma = (high + (1 - u * CONFIG.t_max / 1000) * (low - high)) ** CONFIG.rho
    noise = draws.add_noise(torch.zeros_like(z), torch.ones(16))
    images = networks.generator(
        z.double() * CONFIG.sigma_init, torch.full((16,), CONFIG.sigma_init).double()
    )
    noisy = images + sigma.reshape(-1, 1, 1, 1) * noise
    loss = plain_sid_loss(
        images, networks.teacher(noisy, sigma), networks.fake_view(noisy, sigma), CONFIG.alpha
    )
    exact = torch.autograd.grad(loss.sum(), parameters)
    a, b = (torch.cat([g.flatten().double() for g in gradients]) for gradients in (ours, exact))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("threads", THREADS, indirect=True)
def bench_iteration(benchmark: Any, threads: int, rival: tuple[str, Connection]) -> None:
    error, budget = gradient_error(), 1e-3
    if not error <= budget:
        pytest.fail(f"no speed for a wrong result: error {error:.2e}, allowed {budget:.2e}")
    distiller = Distiller(digits(), CONFIG)
    (name, pipe), times = rival, []

    def turn() -> None:
        pipe.send(True)
        times.append(pipe.recv())

    for _ in range(3):
        turn()
        distiller.step()
    times.clear()
    benchmark.pedantic(distiller.step, setup=turn, rounds=20, iterations=1)
    case = Case(
        "digits iteration",
        f"against {name}",
        (CONFIG.batch, 1, 8, 8),
        torch.float32,
        "contiguous",
        threads,
        0,
        0,
        "auto",
    )
    benchmark.extra_info.update(
        case.row(), error=error, budget=budget, rivals={"eager": sorted(times)[len(times) // 2]}
    )
