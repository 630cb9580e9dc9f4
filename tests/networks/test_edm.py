"""EDM's networks against numbers of the published code, and what must hold of any instance."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sidfast.base.errors import InputError
from sidfast.base.precision import full_float32
from sidfast.networks import DhariwalUNet, EDMPrecond, SongUNet, VEPrecond
from sidfast.networks.edm.block import UNetBlock
from sidfast.ops.random import Key
from sidfast.testing.backends import DEVICES
from sidfast.testing.goldens import golden, golden_path

SMALL: dict[str, Any] = {
    "img_resolution": 8,
    "img_channels": 2,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
CIFAR = {"img_resolution": 32, "img_channels": 3, "augment_dim": 9, "channel_mult": [2, 2, 2]}
FACES = {"img_resolution": 64, "img_channels": 3, "augment_dim": 9, "channel_mult": [1, 2, 2, 2]}
IMAGENET = {"img_resolution": 64, "img_channels": 3, "label_dim": 1000}
PUBLISHED = {
    "cifar10-uncond": ({**CIFAR}, 55_733_891),
    "cifar10-cond": ({**CIFAR, "label_dim": 10}, 55_735_299),
    "imagenet64-cond": ({**IMAGENET, "model_type": "DhariwalUNet"}, 295_899_267),
    "ffhq64": (FACES, 61_805_571),
    "afhq64-v2": (FACES, 61_805_571),
}
# Every feature of the two U-Nets in five small networks.
VARIANTS: dict[str, dict[str, Any]] = {
    "ddpmpp": {"label_dim": 3, "augment_dim": 9},
    "ncsnpp": {
        "embedding_type": "fourier",
        "channel_mult_noise": 2,
        "encoder_type": "residual",
        "resample_filter": [1, 3, 3, 1],
    },
    "skip": {"encoder_type": "skip", "decoder_type": "skip", "resample_filter": [1, 3, 3, 1]},
    "adm": {
        "model_type": "DhariwalUNet",
        "model_channels": 32,
        "label_dim": 3,
        "augment_dim": 9,
    },
    "label dropout": {"label_dim": 3, "label_dropout": 0.5},
}


def small(name: str = "ddpmpp", **changes: Any) -> EDMPrecond:
    """A small network whose every parameter matters (the usual start makes many of them zero)."""
    torch.manual_seed(0)
    net = EDMPrecond(**{**SMALL, **VARIANTS[name], **changes})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return net


def inputs(net: EDMPrecond, batch: int = 4) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, net.img_channels, net.img_resolution, net.img_resolution)
    x = torch.randn(shape, generator=generator)
    sigma = torch.rand(batch, generator=generator) * 3 + 0.05
    labels = torch.eye(net.label_dim)[torch.arange(batch) % 3] if net.label_dim else None
    augment = torch.randn(batch, 9, generator=generator) if net.model.augment_dim else None
    return x, sigma, labels, augment


@pytest.mark.parametrize("name", ["song_uncond", "song_cond", "ncsnpp", "adm_cond"])
@pytest.mark.parametrize(("precision", "limit"), [("f32", 1e-5), ("f64", 1e-8)])
@pytest.mark.parametrize("device", DEVICES)
def test_published_numbers(name: str, precision: str, limit: float, device: str) -> None:
    with full_float32(torch.device(device)):
        check_published_numbers(name, precision, limit if device == "cpu" else 10 * limit, device)


def check_published_numbers(name: str, precision: str, limit: float, device: str) -> None:
    data = golden(f"net_{name}.npz")
    dtype = {"f32": torch.float32, "f64": torch.float64}[precision]
    net = EDMPrecond(**json.loads(str(data["cfg"]))).eval()
    weights = {k[3:]: torch.from_numpy(data[k]) for k in data.files if k.startswith("sd.")}
    net.load_state_dict(weights, strict=True)
    net.to(device, dtype)

    def tensor(key: str) -> Tensor | None:
        return torch.from_numpy(data[key]).to(device, dtype) if key in data.files else None

    x = tensor("x").requires_grad_()
    augment = tensor("augment_labels") if net.model.augment_dim else None
    out = net(x, tensor("sigma"), tensor("class_labels"), augment)
    out.backward(tensor("upstream"))

    def relative(ours: Tensor, theirs: np.ndarray) -> float:
        return np.abs(ours.detach().cpu().numpy() - theirs).max() / np.abs(theirs).max()

    assert relative(out, data[f"out_{precision}"]) <= limit
    assert relative(x.grad, data[f"gx_{precision}"]) <= limit
    gradients = {k: p.grad for k, p in net.named_parameters()}
    prefix = f"gp_{precision}."
    for key in (k for k in data.files if k.startswith(prefix)):
        ours, theirs = gradients[key.removeprefix(prefix)], data[key]
        if key.endswith("qkv.bias"):
            # The true gradient of a key's bias is zero: what is there is rounding.
            ours, theirs = ours.view(-1, 3)[:, ::2], theirs.reshape(-1, 3)[:, ::2]
        assert relative(ours, theirs) <= limit, key
    for key, (_, absolute, norm) in zip(
        data["gp_names"], data[f"gp_checksum_{precision}"], strict=True
    ):
        ours = gradients[str(key)].double()
        assert ours.abs().sum().item() == pytest.approx(absolute, rel=limit), key
        assert ours.norm().item() == pytest.approx(norm, rel=limit), key


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layouts(name: str) -> None:
    with torch.device("meta"):
        state = EDMPrecond(**PUBLISHED[name][0]).state_dict()
    layouts = json.loads(golden_path("state_dict_layouts.json").read_text(encoding="utf-8"))
    assert [(k, list(v.shape)) for k, v in state.items()] == list(layouts[name].items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    arguments, count = PUBLISHED[name]
    with torch.device("meta"):
        net = EDMPrecond(**arguments)
    assert sum(p.numel() for p in net.parameters()) == count


def test_state_dict_names() -> None:
    with torch.device("meta"):
        song = EDMPrecond(**PUBLISHED["cifar10-cond"][0]).state_dict()
        adm = EDMPrecond(**PUBLISHED["imagenet64-cond"][0]).state_dict()
    for state, key, shape in (
        (song, "model.map_label.weight", (128, 10)),
        (song, "model.map_augment.weight", (128, 9)),
        (song, "model.enc.16x16_down.conv0.resample_filter", (1, 1, 2, 2)),
        (song, "model.dec.16x16_block4.qkv.weight", (768, 256, 1, 1)),
        (song, "model.dec.32x32_aux_conv.weight", (3, 256, 3, 3)),
        (adm, "model.enc.8x8_block0.affine.weight", (1536, 768)),
        (adm, "model.dec.64x64_block0.skip.weight", (192, 576, 1, 1)),
        (adm, "model.map_label.weight", (768, 1000)),
    ):
        assert tuple(state[key].shape) == shape, key
    assert sum(key.endswith("qkv.weight") for key in song) == 6
    assert sum(key.endswith("qkv.weight") for key in adm) == 22


def test_start() -> None:
    torch.manual_seed(0)
    song = SongUNet(8, 1, 1, model_channels=32, channel_mult=[1])
    block = song.enc["8x8_block0"]
    bound = math.sqrt(6 / (2 * 32 * 9))
    assert 0.9 * bound < block.conv0.weight.abs().max() <= bound
    assert 0.9e-5 * bound < block.conv1.weight.abs().max() <= 1e-5 * bound
    assert not block.conv0.bias.any()
    adm = DhariwalUNet(8, 1, 1, label_dim=16, model_channels=64, channel_mult=[1], num_blocks=1)
    block = adm.enc["8x8_block0"]
    bound = 1 / math.sqrt(64 * 9)
    assert 0.9 * bound < block.conv0.weight.abs().max() <= bound
    assert 0.9 * bound < block.conv0.bias.abs().max() <= bound
    assert not block.conv1.weight.any() and not block.proj.weight.any()
    assert adm.map_label.weight.std().item() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_in_float64(name: str) -> None:
    net = small(name, img_channels=1, img_resolution=4, attn_resolutions=[2]).double().eval()
    x, sigma, labels, augment = inputs(net, batch=2)
    x = x.double().requires_grad_()
    torch.autograd.gradcheck(lambda x: net(x, sigma, labels, augment), (x,), fast_mode=True)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net = small(name).eval()
    out = net(*inputs(net))
    assert out.dtype == torch.float32 and out.shape == inputs(net)[0].shape
    out.square().sum().backward()
    dead = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("name", VARIANTS)
def test_keyed_dropout_ignores_the_batch(name: str) -> None:
    net = small(name, dropout=0.4).train()
    x, sigma, labels, augment = inputs(net, batch=6)
    index = torch.tensor([5, 2**40, 7, 0, 3, 11])

    def run(rows: slice, seed: int = 9, stream: int = 1 << 24) -> Tensor:
        key = Key(seed, index[rows], stream)
        optional = (None if v is None else v[rows] for v in (labels, augment))
        return net(x[rows], sigma[rows], *optional, key=key)

    whole = run(slice(None))
    assert torch.equal(whole, run(slice(None)))
    torch.testing.assert_close(whole, torch.cat([run(slice(2)), run(slice(2, 6))]))
    assert not torch.allclose(whole, run(slice(None), seed=10))
    assert not torch.allclose(whole, run(slice(None), stream=2 << 24))
    assert not torch.allclose(whole, net(x, sigma, labels, augment))
    key = Key(9, index, 1 << 24)
    unseeded = [net.eval()(x, sigma, labels, augment, key=k) for k in (key, None)]
    assert torch.equal(*unseeded)


def test_each_block_has_its_own_masks() -> None:
    net = small("skip")
    layers = [m.layer for m in net.modules() if isinstance(m, UNetBlock)]
    assert layers == list(range(net.model.num_layers)) and len(layers) > 5


@pytest.mark.parametrize("name", ["ddpmpp", "adm"])
def test_no_labels_are_zero_labels(name: str) -> None:
    net = small(name).eval()
    x, sigma, labels, augment = inputs(net)
    zeros = torch.zeros_like(labels), torch.zeros_like(augment)
    torch.testing.assert_close(net(x, sigma), net(x, sigma, *zeros))
    assert not torch.allclose(net(x, sigma), net(x, sigma, labels))
    assert not torch.allclose(net(x, sigma), net(x, sigma, None, augment))


def test_sigma_in_any_form() -> None:
    net = small().eval()
    x, sigma, labels, augment = inputs(net)
    torch.testing.assert_close(
        net(x, sigma, labels, augment),
        net(x, sigma.view(-1, 1, 1, 1).double(), labels, augment),
    )
    per_image = net(x, torch.full((4,), 2.5), labels, augment)
    for one in (2.5, torch.tensor(2.5), torch.tensor([2.5])):
        torch.testing.assert_close(net(x, one, labels, augment), per_image)


@pytest.mark.parametrize("name", ["ddpmpp", "adm"])
def test_one_graph(name: str) -> None:
    net = small(name, dropout=0.2, num_blocks=0).train()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    key = Key(3, torch.arange(4), 1 << 24)
    results = []
    for function in (net, compiled):
        net.zero_grad()
        out = function(*inputs(net), key=key)
        out.square().sum().backward()
        results.append([out, *(p.grad for p in net.parameters())])
    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(eager, traced, rtol=1e-4, atol=1e-5)


def test_half_precision_inside() -> None:
    net = small().eval()
    x, sigma, labels, augment = inputs(net)
    exact = net.model(x, sigma, labels, augment)
    half = net.model(x.bfloat16(), sigma, labels, augment)
    assert half.dtype == torch.bfloat16
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, x, s, c: n(x[:, :1], s), r"images \(B, 2, 8, 8\), got \(4, 1, 8, 8\)"),
        (lambda n, x, s, c: n(x[..., :4], s), r"images \(B, 2, 8, 8\)"),
        (lambda n, x, s, c: n(x, s[:3]), r"sigma as a number, \(4,\)"),
        (lambda n, x, s, c: n(x, s.expand(4, 4)), "sigma as a number"),
        (lambda n, x, s, c: n(x, s, c[:, :2]), r"class_labels \(4, 3\), got \(4, 2\)"),
        (lambda n, x, s, c: n(x, s, c.argmax(1)), r"class_labels \(4, 3\), got \(4,\)"),
        (lambda n, x, s, c: n(x, s, c, torch.zeros(4, 8)), r"augment_labels \(4, 9\)"),
        (lambda n, x, s, c: small("skip")(x, s, c), "no class_labels"),
        (lambda n, x, s, c: small("skip")(x, s, None, torch.zeros(4, 9)), "no augment_labels"),
        (lambda n, x, s, c: EDMPrecond(8, 1, model_type="UNet"), "model_type among SongUNet"),
        (lambda n, x, s, c: EDMPrecond(8, 1, encoder_type="fancy"), "encoder_type among"),
        (lambda n, x, s, c: VEPrecond(8, 1, resample_filter=[1, 2, 1]), "even number"),
        (lambda n, x, s, c: EDMPrecond(8, 1, model_channels=130), "divisible by its 32"),
    ],
)
def test_misuse_is_explained(call: Any, message: str) -> None:
    net = small().eval()
    x, sigma, labels, _ = inputs(net)
    with pytest.raises(InputError, match=message):
        call(net, x, sigma, labels)
