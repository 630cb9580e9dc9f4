"""What this machine offers: versions, devices, and which back ends serve here."""

from __future__ import annotations

import platform
import textwrap
from dataclasses import dataclass
from importlib import metadata

import torch

from sidfast.base import cuda, native
from sidfast.base.version import __version__
from sidfast.ops import backends_report

_PACKAGES = (
    "torch",
    "triton",
    "xformers",
    "numpy",
    "pydantic",
    "safetensors",
    "rich",
    "matplotlib",
    "scikit-learn",
)
INDENT = 4 * " "


@dataclass(frozen=True)
class Info:
    """Versions, devices and back ends; printing it gives the report of `sidfast info`.

    Attributes:
        versions: package -> version, or "not installed".
        devices: one line per device.
        native: why the compiled CPU library cannot be used; empty if it can.
        instruction_set: what that library runs with here, "" without it.
        cuda: why the compiled CUDA library cannot be used, whatever the device; empty if it can.
        cuda_build: CUDA version and architectures of that library, "" without it.
        backends: (device, operator) -> back end -> reasons why it cannot serve there.
    """

    versions: dict[str, str]
    devices: list[str]
    native: list[str]
    instruction_set: str
    cuda: list[str]
    cuda_build: str
    backends: dict[tuple[str, str], dict[str, list[str]]]

    def __str__(self) -> str:
        lines = ["versions"]
        lines += [f"  {name:13}{version}" for name, version in self.versions.items()]
        lines += ["devices", *(f"  {device}" for device in self.devices)]
        state = "; ".join(self.native) or f"loaded, {self.instruction_set}"
        lines += ["native CPU library", f"  {state}"]
        lines += ["CUDA library", f"  {'; '.join(self.cuda) or f'loaded, {self.cuda_build}'}"]
        for device in dict.fromkeys(device for device, _ in self.backends):
            lines += self._operators(device)
        return "\n".join(lines)

    def _operators(self, device: str) -> list[str]:
        """A table of the back ends that serve each operator, and why the others do not."""
        served = {op: rows for (where, op), rows in self.backends.items() if where == device}
        names = list(dict.fromkeys(name for rows in served.values() for name in rows))
        # The reference serves everything, and comes last in the order of preference.
        names.sort(key=lambda name: name == "reference")
        lines = [f"{f'operators on {device}':22}" + "".join(f"{name:10}" for name in names)]
        refused: dict[str, list[str]] = {}  # why, and which operators
        for op, rows in served.items():
            cells = []
            for name in names:
                reasons = rows.get(name)
                cells.append("-" if reasons is None else "no" if reasons else "yes")
                for reason in reasons or ():
                    refused.setdefault(f"{name}: {reason}", []).append(op)
            lines.append(f"  {op:20}" + "".join(f"{cell:10}" for cell in cells))
        for reason, ops in refused.items():
            lines += [f"  {reason}"]
            lines += textwrap.wrap(
                ", ".join(ops), 96, initial_indent=INDENT, subsequent_indent=INDENT
            )
        return [line.rstrip() for line in lines]


def info() -> Info:
    """Look at this machine. Nothing is installed, changed or allocated on a GPU."""
    versions = {"sidfast": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    capability = torch.backends.cpu.get_cpu_capability()
    devices = [f"cpu: {torch.get_num_threads()} threads, {capability}, {platform.machine()}"]
    kinds = ["cpu"]
    if torch.cuda.is_available():
        kinds.append("cuda")
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            devices.append(
                f"cuda:{i}: {p.name}, {p.total_memory / 2**30:.0f} GiB, sm_{p.major}{p.minor}"
            )
    else:
        devices.append("cuda: none that torch can use")
    missing = native.reasons()
    instruction_set = "" if missing else native.cpu_library().isa()
    no_cuda = cuda.missing()
    cuda_build = "" if no_cuda else cuda.build()
    return Info(
        versions,
        devices,
        missing,
        instruction_set,
        no_cuda,
        cuda_build,
        backends_report(kinds),
    )
