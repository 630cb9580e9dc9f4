"""Checkpoints that a crash, a full disk or a flipped bit cannot turn into a wrong run.

A checkpoint is a folder of two files: `state.safetensors` and `manifest.json`, which holds
everything that is no tensor and a SHA-256 for each tensor. It is written under a temporary name,
flushed to disk and renamed; the previous one goes only after that.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.base.files import bytes_of, flush

_TENSOR = "tensor:"


def save_checkpoint(folder: Path, name: str, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `state` (nested dicts and lists of tensors and plain values) to folder/name.

    Args:
        keep: how many of the newest checkpoints stay, this one among them.

    Raises:
        InputError: the disk refuses; the earlier checkpoints are untouched.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, "", tensors)
    target, temporary, replaced = (folder / n for n in (name, f".{name}.partial", f".{name}.old"))
    try:
        for leftover in folder.glob(".*"):
            shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
        save_file(tensors, temporary / "state.safetensors")
        manifest = {
            "format": 1,
            "tree": tree,
            "sha256": {key: fingerprint(tensor) for key, tensor in tensors.items()},
        }
        (temporary / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        flush([*temporary.iterdir(), temporary])
        if target.exists():
            target.rename(replaced)
        temporary.rename(target)
        flush([folder])
        for old in (replaced, *checkpoints(folder)[:-keep]):
            shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(
            expected=f"to write a checkpoint to {folder}",
            got=str(error),
            fix="free space or choose another folder; the earlier checkpoints are whole",
        ) from error
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; tensors come on the CPU.

    Raises:
        InputError: a file is missing, cut short or altered.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        tensors = load_file(path / "state.safetensors")
        recorded, tree = manifest["sha256"], manifest["tree"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _damaged(path, str(error)) from error
    if set(recorded) != set(tensors):
        raise _damaged(path, "other tensors than its manifest lists")
    for name, tensor in tensors.items():
        if fingerprint(tensor) != recorded[name]:
            raise _damaged(path, f"tensor {name} with another checksum")
    return _restore(tree, tensors)


def fingerprint(tensors: Tensor | nn.Module) -> str:
    """SHA-256 of a tensor's bytes, or of a network's parameters and buffers."""
    digest = hashlib.sha256()
    parts = [tensors] if isinstance(tensors, Tensor) else list(tensors.state_dict().values())
    for tensor in parts:
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def _damaged(path: Path, got: str) -> InputError:
    return InputError(
        expected=f"a whole checkpoint at {path}",
        got=got,
        fix="delete that folder to resume from the one before",
    )


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return _TENSOR + name
    if isinstance(value, dict):
        return {
            str(key): _flatten(item, f"{name}.{key}" if name else str(key), tensors)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_flatten(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    return value


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value[len(_TENSOR) :]]
    if isinstance(value, dict):
        return {
            int(key) if key.isdigit() else key: _restore(item, tensors)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_restore(item, tensors) for item in value]
    return value
