"""The parts of EDM's networks against float64 formulas written out separately."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.networks import (
    EDMPrecond,
    VEPrecond,
    VPPrecond,
    build_network,
    iDDPMPrecond,
    network_config,
)
from sidfast.networks.edm.block import BlockOptions, UNetBlock
from sidfast.networks.edm.embedding import PositionalEmbedding
from sidfast.networks.edm.layers import Conv2d, Init

TINY = {
    "img_resolution": 8,
    "img_channels": 1,
    "model_channels": 4,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [],
    "model_type": "SongUNet",
}
SIGMAS = [0.002, 0.03, 0.5, 2.5, 40.0]


class Probe(nn.Module):
    """In place of the U-Net: returns cos of its input and remembers what it was called with."""

    def forward(self, x: Tensor, noise_labels: Tensor, *rest: object, key: object = None) -> Tensor:
        self.x, self.noise_labels = x, noise_labels
        return torch.cat([x.cos(), x], dim=1)

    map_layer0 = nn.Linear(1, 1).double()
    augment_dim = 0


def iddpm_levels() -> list[float]:
    """The discrete noise levels from the cosine schedule, by products instead of recursion."""
    bar = [math.sin(math.pi / 2 * j / (1000 * 1.008)) ** 2 for j in range(1001)]
    levels, product = [0.0], 1.0
    for j in range(1000, 0, -1):
        product *= max(bar[j - 1] / bar[j], 0.001)
        levels.append(math.sqrt(1 / product - 1))
    return levels[::-1]


def expected(kind: str, sigma: float) -> tuple[float, float, float, float]:
    if kind == "EDMPrecond":
        total = sigma**2 + 0.25
        return 0.25 / total, sigma * 0.5 / total**0.5, total**-0.5, math.log(sigma) / 4
    if kind == "VPPrecond":
        # Time by bisection of the noise level's definition.
        low, high = 0.0, 1.1
        for _ in range(200):
            t = (low + high) / 2
            low, high = (t, high) if math.exp(9.95 * t * t + 0.1 * t) < sigma**2 + 1 else (low, t)
        return 1.0, -sigma, (sigma**2 + 1) ** -0.5, 999 * t
    if kind == "VEPrecond":
        return 1.0, sigma, 1.0, math.log(sigma / 2)
    nearest = int(np.abs(np.array(iddpm_levels()) - sigma).argmin())
    return 1.0, -sigma, (sigma**2 + 1) ** -0.5, 999 - nearest


@pytest.mark.parametrize("cls", [EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond])
def test_preconditioning(cls: type[EDMPrecond]) -> None:
    net = cls(**TINY)
    net.model = Probe()
    x = torch.linspace(-2, 2, len(SIGMAS) * 64, dtype=torch.float64).view(-1, 1, 8, 8)
    out = net(x, torch.tensor(SIGMAS, dtype=torch.float64))
    assert out.dtype == torch.float64
    for i, sigma in enumerate(SIGMAS):
        c_skip, c_out, c_in, c_noise = expected(cls.__name__, sigma)
        torch.testing.assert_close(net.model.x[i], c_in * x[i], rtol=1e-12, atol=0)
        assert net.model.noise_labels[i].item() == pytest.approx(c_noise, rel=1e-7, abs=1e-7)
        torch.testing.assert_close(out[i], c_skip * x[i] + c_out * (c_in * x[i]).cos())


def test_iddpm_levels() -> None:
    net = iDDPMPrecond(**TINY)
    np.testing.assert_allclose(net.u, iddpm_levels(), rtol=1e-6, atol=1e-7)
    assert net.u[8].item() == pytest.approx(80, rel=0.01)
    assert net.model.dec["8x8_aux_conv"].out_channels == 2


def test_positional_embedding() -> None:
    label = torch.tensor([0.7, -3.0], dtype=torch.float64)
    for endpoint in (True, False):
        ours = PositionalEmbedding(8, endpoint=endpoint)(label).numpy()
        freqs = 10000.0 ** (-np.arange(4) / (3 if endpoint else 4))
        angle = label.numpy()[:, None] * freqs
        np.testing.assert_allclose(ours, np.hstack([np.cos(angle), np.sin(angle)]), rtol=1e-12)


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_resampling(taps: tuple[int, ...], direction: str) -> None:
    layer = Conv2d(2, 2, 0, init=Init(""), resample_filter=taps, **{direction: True}).double()
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    weights = np.array(taps) / sum(taps)
    pad = (len(taps) - 1) // 2

    def along_rows(image: np.ndarray) -> np.ndarray:
        size = image.shape[0]
        if direction == "down":
            padded = np.pad(image, ((pad, pad), (0, 0)))
            return np.stack([weights @ padded[2 * i : 2 * i + len(taps)] for i in range(size // 2)])
        out = np.zeros((2 * size + 2 * pad, image.shape[1]))
        for i in range(size):
            out[2 * i : 2 * i + len(taps)] += 2 * weights[:, None] * image[i]
        return out[pad : pad + 2 * size]

    ours = layer(x)[0].numpy()
    for channel in range(2):
        theirs = along_rows(along_rows(x[0, channel].numpy()).T).T
        np.testing.assert_allclose(ours[channel], theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("adaptive_scale", [False, True])
def test_residual_block(adaptive_scale: bool) -> None:
    torch.manual_seed(0)
    init = Init("kaiming_uniform", bias=1.0)
    options = BlockOptions(
        emb_channels=5,
        dropout=0.5,
        skip_scale=0.7,
        eps=1e-3,
        adaptive_scale=adaptive_scale,
        resample_proj=True,
        resample_filter=(1, 1),
        channels_per_head=6,
        init=init,
        init_zero=init,
        init_attn=init,
    )
    block = UNetBlock(8, 12, options, attention=True).double().eval()
    with torch.no_grad():
        for norm_layer in (block.norm0, block.norm1, block.norm2):
            norm_layer.weight.normal_()
            norm_layer.bias.normal_()
    w = {k: v.detach().numpy() for k, v in block.named_parameters()}
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    emb = torch.randn(2, 5, dtype=torch.float64)

    def norm(h: np.ndarray, name: str) -> np.ndarray:
        channels = h.shape[1]
        out = np.empty_like(h)
        size = channels // (channels // 4)
        for n in range(len(h)):
            for start in range(0, channels, size):
                group = h[n, start : start + size]
                out[n, start : start + size] = (group - group.mean()) / np.sqrt(group.var() + 1e-3)
        return out * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]

    def conv(h: np.ndarray, name: str) -> np.ndarray:
        kernel = w[f"{name}.weight"]
        pad = kernel.shape[2] // 2
        rows, columns = h.shape[2:]
        padded = np.pad(h, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        out = sum(
            np.einsum(
                "oc,nchw->nohw", kernel[:, :, i, j], padded[..., i : i + rows, j : j + columns]
            )
            for i in range(kernel.shape[2])
            for j in range(kernel.shape[2])
        )
        return out + w[f"{name}.bias"][:, None, None]

    def silu(h: np.ndarray) -> np.ndarray:
        return h / (1 + np.exp(-h))

    params = (emb.numpy() @ w["affine.weight"].T + w["affine.bias"])[:, :, None, None]
    h = conv(silu(norm(x.numpy(), "norm0")), "conv0")
    if adaptive_scale:
        h = norm(h, "norm1") * (1 + params[:, :12]) + params[:, 12:]
    else:
        h = norm(h + params, "norm1")
    h = 0.7 * (conv(silu(h), "conv1") + conv(x.numpy(), "skip"))
    qkv = conv(norm(h, "norm2"), "qkv")
    mixed = np.empty_like(h)
    for n in range(2):
        for channels in (range(6), range(6, 12)):
            q, k, v = (
                np.stack([qkv[n, 3 * c + part].ravel() for c in channels]) for part in range(3)
            )
            scores = np.exp(q.T @ k / math.sqrt(6))
            weights = scores / scores.sum(axis=1, keepdims=True)
            mixed[n, list(channels)] = (v @ weights.T).reshape(6, 3, 5)
    theirs = 0.7 * (conv(mixed, "proj") + h)
    np.testing.assert_allclose(block(x, emb).detach().numpy(), theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cls", [EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond])
def test_config_round_trip(cls: type[EDMPrecond]) -> None:
    net = cls(**{**TINY, "label_dim": 3, "augment_dim": 9, "dropout": 0.3}).eval()
    config = json.loads(json.dumps(network_config(net), allow_nan=False))
    assert config["class"] == cls.__name__ and config["channel_mult"] == [1]
    twin = build_network(config).eval()
    assert network_config(twin) == network_config(net)
    assert (twin.sigma_min, twin.sigma_max) == (net.sigma_min, net.sigma_max)
    twin.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(net(x, 0.8), twin(x, 0.8))


def test_config_misuse() -> None:
    with pytest.raises(InputError, match="one of EDMPrecond"):
        network_config(nn.Linear(1, 1))
    with pytest.raises(InputError, match="class is one of"):
        build_network({"class": "os.system"})
    with pytest.raises(InputError, match="constructor arguments of EDMPrecond"):
        build_network({"class": "EDMPrecond", "img_resolution": 8, "img_channels": 1, "depth": 3})
