"""Teachers by name and from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from sidfast.base.errors import InputError
from sidfast.networks import EDMPrecond
from sidfast.networks.files import load_network
from sidfast.teachers.check import check_teacher

_WEIGHTS = Path(__file__).parent / "weights"
_BUNDLED = {"digits": "digits_uncond.safetensors", "digits-cond": "digits_cond.safetensors"}


def load(source: str | Path) -> nn.Module:
    """A frozen teacher in eval mode, on the CPU.

    Args:
        source: "digits" or "digits-cond" (in the package), or the path of a `.safetensors` file
            written by `sidfast.networks.files.save_network`.

    Raises:
        InputError: unknown name, missing or damaged file, or a network that cannot be distilled.
    """
    if str(source) in _BUNDLED:
        path = _WEIGHTS / _BUNDLED[str(source)]
    else:
        path = Path(source)
        if path.suffix != ".safetensors":
            raise InputError(
                expected=f"one of {', '.join(_BUNDLED)} or a .safetensors file",
                got=str(source),
                fix="write a network file with sidfast.networks.files.save_network",
            )
    net, _ = load_network(path)
    check_teacher(net)
    return net.requires_grad_(False)


def digits(conditional: bool = False) -> EDMPrecond:
    """The bundled teacher: 8x8 grey handwritten digits, images (B, 1, 8, 8) in [-1, 1].

    A small DDPM++ with EDM preconditioning, trained by `examples/train_digits_teacher.py` on the
    1,500 images of `sidfast.data.digits("train")`; the `.json` beside the weights says how.

    Args:
        conditional: the class-conditional network (label_dim 10) instead of the unconditional.
    """
    net = load("digits-cond" if conditional else "digits")
    assert isinstance(net, EDMPrecond)
    return net


def digits_record(conditional: bool = False) -> dict[str, Any]:
    """How the bundled teacher was made and how good it is: the `.json` beside its weights.

    "command" reproduces the weights; "quality" is what `sidfast.evaluate.Quality.from_dict` reads,
    measured on 10,000 samples of 18 Heun steps drawn with seed 0.
    """
    name = _BUNDLED["digits-cond" if conditional else "digits"]
    record: dict[str, Any] = json.loads((_WEIGHTS / name).with_suffix(".json").read_text())
    return record
