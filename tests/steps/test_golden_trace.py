"""Three iterations of the method authors' code, replayed draw by draw."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from sidfast.base.precision import full_float32
from sidfast.networks import EDMPrecond
from sidfast.optim import AdamEMA, ema_beta
from sidfast.steps import (
    Networks,
    RecordedDraws,
    StepConfig,
    fake_score_update,
    generator_update,
)
from sidfast.testing.backends import DEVICES
from sidfast.testing.goldens import golden


def gradients(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """All gradients; zero where there is none (the authors feed zero augmentation labels)."""
    return {
        name: np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.cpu().numpy()
        for name, parameter in network.named_parameters()
    }


def relative_l2(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    a = np.concatenate([ours[name].ravel() for name in theirs]).astype(np.float64)
    b = np.concatenate([theirs[name].ravel() for name in theirs]).astype(np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("device", DEVICES)
def test_three_iterations_match_the_authors_code(device: str) -> None:
    with full_float32(torch.device(device)):
        replay(device)


def replay(device: str) -> None:
    trace = golden("trace_uncond.npz")
    meta = json.loads(str(trace["meta"]))
    arguments = dict(meta["cfg"])
    teacher = EDMPrecond(**arguments).eval()
    start = {k[3:]: torch.from_numpy(trace[k]) for k in trace.files if k.startswith("sd.")}
    teacher.load_state_dict(start)
    teacher.to(device)
    networks = Networks.from_teacher(teacher)
    average = copy.deepcopy(networks.generator_view)
    cfg = StepConfig(
        alpha=meta["alpha"],
        t_max=meta["tmax"],
        sigma_init=meta["init_sigma"],
        fake_loss_scale=float(meta["ls"]),
        generator_loss_scale=float(meta["lsg"]),
    )
    fake_optimizer = AdamEMA(
        networks.fake.parameters(),
        meta["lr"],
        tuple(meta["betas_fake"]),
        meta["eps"],
        nonfinite="clamp",
    )
    generator_optimizer = AdamEMA(
        networks.generator.parameters(),
        meta["glr"],
        tuple(meta["betas_g"]),
        meta["eps"],
        ema=list(average.parameters()),
        nonfinite="clamp",
    )
    batch = meta["batch_gpu"]

    def draws(iteration: int, update: str, level: str) -> RecordedDraws:
        prefix = f"noise.it{iteration}.{update}.r0."
        z, n, eps = (
            torch.from_numpy(trace[prefix + k]).to(device) for k in ("z_unit", level, "eps")
        )
        return RecordedDraws(z, n, eps)

    def recorded(prefix: str) -> dict[str, np.ndarray]:
        return {k[len(prefix) :]: trace[k] for k in trace.files if k.startswith(prefix)}

    for i in range(3):
        loss = fake_score_update(
            networks, fake_optimizer, [draws(i, "fake", "rnd_normal")], cfg, batch
        )
        rounding = 1e-6 if device == "cpu" else 1e-5  # the authors' numbers are a CPU's
        expected = pytest.approx(float(trace[f"f32.it{i}.fake.r0.loss"]), rel=rounding)
        assert loss.item() == expected
        theirs = recorded(f"f32.it{i}.fake.grad.")
        assert theirs and relative_l2(gradients(networks.fake), theirs) < 1e-4

        beta = ema_beta(
            batch,
            i * batch,
            halflife=meta["ema_halflife_kimg"] * 1000,
            rampup=meta["ema_rampup"],
        )
        assert beta == pytest.approx(float(trace[f"f32.it{i}.ema_beta"]), rel=1e-12)
        loss = generator_update(
            networks, generator_optimizer, [draws(i, "gen", "rnd_u")], cfg, batch, beta
        )
        scaled = loss.item() * cfg.generator_loss_scale
        assert scaled == pytest.approx(float(trace[f"f32.it{i}.gen.r0.loss"]), rel=1e-3)
        theirs = recorded(f"f32.it{i}.gen.grad.")
        assert theirs and relative_l2(gradients(networks.generator), theirs) < 1e-3

    for name, network in (
        ("fake", networks.fake),
        ("G", networks.generator),
        ("ema", average),
    ):
        final = recorded(f"f32.final.{name}.")
        differences = []
        for key, value in final.items():
            ours = dict(network.state_dict())[key].cpu().numpy()
            difference = np.abs(ours - value).ravel()
            if key.endswith("qkv.bias"):
                # The true gradient of a key bias is zero: it walks on rounding noise.
                difference = np.delete(difference, np.s_[1::3])
            differences.append(difference)
        flat = np.concatenate(differences)
        assert (flat <= 1e-6).mean() >= 0.998, name
        assert flat.max() <= 2 * meta["lr"] * 3, name
