"""Network files: one safetensors file that holds the weights and how to rebuild the network.

The metadata entry "sidfast" is JSON: the constructor arguments (`network_config`), whatever the
writer wants to add (`extra`), and a SHA-256 over both and over every tensor, because safetensors
itself does not notice a flipped bit. Nothing is pickled, so reading a file runs no code from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.base.files import bytes_of, write_whole
from sidfast.networks import build_network, can_rebuild, network_config

METADATA_KEY = "sidfast"
FORMAT = 1
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "BOOL": torch.bool,
}


def save_network(net: nn.Module, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write `net` and `extra` (JSON-able) to `path`, atomically.

    A network that is not of `sidfast.networks` is written without a way to rebuild it. Raises
    `InputError` where the folder cannot be written to.
    """
    from safetensors.torch import save

    path = Path(path)
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()
    }
    config = network_config(net) if can_rebuild(net) else None
    content = {"network": config, "extra": dict(extra or {})}
    header = {"format": FORMAT, **content, "sha256": _checksum(tensors, content)}
    data = save(tensors, metadata={METADATA_KEY: json.dumps(header)})
    try:
        write_whole(path, data)
    except OSError as error:
        raise InputError(
            expected=f"a place to write {path}",
            got=f"{error.strerror or error}",
            fix="choose an existing, writable folder with free space",
        ) from error


def load_network(
    path: str | Path, into: nn.Module | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Read a file of `save_network`: the network (on the CPU, eval mode) and `extra`.

    A network that is not of `sidfast.networks` cannot be rebuilt from its file: `into` is one of
    its architecture, which gets the weights.

    Raises `InputError` when the file is missing, truncated, altered, not ours, or holds NaN.
    """
    path = Path(path)
    tensors, metadata = _read_safetensors(path)
    if METADATA_KEY not in metadata:
        raise InputError(
            expected=f"a network file of sidfast at {path}",
            got=f"a safetensors file without the metadata entry {METADATA_KEY!r}",
            fix="pass a file written by sidfast (a run's generator.safetensors or a teacher's)",
        )
    try:
        header = json.loads(metadata[METADATA_KEY])
        version, stored = header["format"], header["sha256"]
        content = {"network": header["network"], "extra": header["extra"]}
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, f"unreadable metadata ({error!r})") from error
    if version != FORMAT:
        raise InputError(
            expected=f"network file format {FORMAT} at {path}",
            got=f"format {version}",
            fix="read it with the version of sidfast that wrote it",
        )
    if _checksum(tensors, content) != stored:
        raise _damaged(path, "content that does not match its checksum")

    if into is None and content["network"] is None:
        raise InputError(
            expected=f"a network to load the weights of {path} into",
            got="none, and the file holds a network that sidfast cannot build",
            fix="pass network=, a module of the same architecture",
        )
    net = into if into is not None else build_network(content["network"])
    _check_layout(path, tensors, net.state_dict())
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(
                expected=f"finite weights in {path}",
                got=f"NaN or infinity in {name}",
                fix="use an earlier checkpoint: this network diverged before it was saved",
            )
    net.load_state_dict(tensors)
    return net.eval(), content["extra"]


def _checksum(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata; by hand, so that weights can be read where torch is all there is.

    The format is 8 bytes of header length, a JSON header, and the tensors' bytes.
    """
    try:
        data = bytearray(path.read_bytes())
    except OSError as error:
        raise InputError(
            expected=f"a network file at {path}",
            got=(error.strerror or "unreadable").lower(),
            fix="check the path",
        ) from error
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        metadata = header.pop("__metadata__", {})
        body = data[start:]
        return {name: _stored(body, **entry) for name, entry in header.items()}, metadata
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"unreadable content ({error!r})") from error


def _stored(body: bytearray, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    start, end = data_offsets
    kind = _DTYPES[dtype]
    if not 0 <= start <= end <= len(body) or end - start != prod(shape) * kind.itemsize:
        raise ValueError(f"{dtype} {shape} at {data_offsets} of {len(body)} bytes")
    if start == end:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(body[start:end], dtype=kind).view(shape)


def _check_layout(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        got = tuple(found[name].shape) if name in found else "nothing"
        expected = tuple(wanted[name].shape) if name in wanted else "nothing"
        if got != expected:
            raise InputError(
                expected=f"{name} {expected} in {path}",
                got=got,
                fix="the weights belong to another architecture; save them again with their own",
            )


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        expected=f"an intact network file at {path}",
        got=what,
        fix="it is damaged or was not written by sidfast: copy or make it again",
    )
