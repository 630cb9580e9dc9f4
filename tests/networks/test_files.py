"""Network files: what is written comes back, and no damage passes unnoticed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from sidfast.base.errors import InputError
from sidfast.networks import EDMPrecond, VPPrecond
from sidfast.networks.files import METADATA_KEY, load_network, save_network

safetensors = pytest.importorskip("safetensors.torch")


def small_network(cls: type = EDMPrecond, **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    arguments = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, **changes}
    net = cls(img_resolution=8, img_channels=1, attn_resolutions=[4], **arguments)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_network(small_network(), path, extra={"note": "für später", "steps": 3})
    return path


@pytest.mark.parametrize(("cls", "label_dim"), [(EDMPrecond, 0), (EDMPrecond, 10), (VPPrecond, 0)])
def test_round_trip(tmp_path: Path, cls: type, label_dim: int) -> None:
    net = small_network(cls, label_dim=label_dim)
    save_network(net, tmp_path / "net.safetensors", extra={"n": [1, 2.5]})
    loaded, extra = load_network(tmp_path / "net.safetensors")

    assert type(loaded) is cls and extra == {"n": [1, 2.5]} and not loaded.training
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 3.0])
    labels = torch.eye(10)[:2] if label_dim else None
    assert torch.equal(loaded(x, sigma, labels), net(x, sigma, labels))


def test_saving_twice_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    net, extra = load_network(saved)
    save_network(net, tmp_path / "again.safetensors", extra)
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_nothing_else_remains_in_the_folder(saved: Path) -> None:
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("kept", [0, 4, 200, 0.5, 0.999])
def test_truncated(saved: Path, kept: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match="an intact network file"):
        load_network(saved)


@pytest.mark.parametrize("place", [*range(0, 1600, 53), -1, -1000, -50_000])
def test_every_flipped_bit_is_noticed(saved: Path, place: int) -> None:
    data = bytearray(saved.read_bytes())
    data[place] ^= 1
    saved.write_bytes(data)
    with pytest.raises(InputError):
        load_network(saved)


def rewrite_header(path: Path, **changes: object) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    header.update(changes)
    safetensors.save_file(
        safetensors.load_file(path), path, metadata={METADATA_KEY: json.dumps(header)}
    )


def test_edited_extra_is_noticed(saved: Path) -> None:
    rewrite_header(saved, extra={"note": "forged"})
    with pytest.raises(InputError, match="checksum"):
        load_network(saved)


def test_later_format(saved: Path) -> None:
    rewrite_header(saved, format=99)
    with pytest.raises(InputError, match="format 99"):
        load_network(saved)


@pytest.mark.parametrize("metadata", [None, {METADATA_KEY: "{"}, {METADATA_KEY: "[]"}])
def test_foreign_metadata(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    safetensors.save_file(
        {"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors", metadata=metadata
    )
    with pytest.raises(InputError):
        load_network(tmp_path / "foreign.safetensors")


def test_not_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "picture.safetensors"
    path.write_bytes(b"\x89PNG\r\n" * 100)
    with pytest.raises(InputError, match="an intact network file"):
        load_network(path)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_network(tmp_path / "absent.safetensors")
    with pytest.raises(InputError):
        load_network(tmp_path)


def test_nan_names_the_parameter(tmp_path: Path) -> None:
    net = small_network()
    with torch.no_grad():
        net.model.map_layer0.weight[0, 0] = float("nan")
    save_network(net, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match=r"model\.map_layer0\.weight"):
        load_network(tmp_path / "nan.safetensors")


def test_failed_write_leaves_the_old_file_and_no_debris(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(InputError, match="No space left"):
        save_network(small_network(), saved)
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a place to write"):
        save_network(small_network(), tmp_path / "absent" / "net.safetensors")


def test_foreign_network_is_read_into_one_of_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    net, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    save_network(net, path, {"note": 1})
    with pytest.raises(InputError, match="network="):
        load_network(path)
    back, extra = load_network(path, other)
    assert back is other and extra == {"note": 1} and torch.equal(other.weight, net.weight)
    with pytest.raises(InputError, match="another architecture"):
        load_network(path, torch.nn.Linear(3, 1))
