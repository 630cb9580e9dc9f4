"""The folder of a run: what lies where, and how it is opened, continued and written to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidfast.base.errors import InputError
from sidfast.distillation.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from sidfast.distillation.config import DistillConfig


class RunFolder:
    """config.yaml, metrics.jsonl, samples/, checkpoints/, curves.png, generator.safetensors."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self.curves = self.path / "curves.png"
        self.generator = self.path / "generator.safetensors"

    def start(self, cfg: DistillConfig) -> None:
        """Make the folder for a new run.

        Raises:
            InputError: it cannot be written, or holds a run already.
        """
        if self.metrics.exists() or checkpoints(self.checkpoints):
            raise InputError(
                expected=f"a new run folder at {self.path}",
                got="the folder of another run",
                fix="choose another folder, delete this one, or continue it: --resume, resume=True",
            )
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            self.config.write_text(cfg.to_yaml(), encoding="utf-8")
        except OSError as error:
            raise InputError(
                expected=f"a folder that can be written at {self.path}",
                got=str(error),
                fix="choose another folder",
            ) from error

    def resume(self) -> tuple[DistillConfig, dict[str, Any]]:
        """Config and newest state of a run.

        Raises:
            InputError: there is nothing to continue, or it is damaged.
        """
        found = checkpoints(self.checkpoints)
        if not found:
            raise InputError(
                expected=f"a run with a checkpoint at {self.path}",
                got="none",
                fix="check the folder, or start the run anew without resume",
            )
        return DistillConfig.read(self.config), load_checkpoint(found[-1])

    def forget_after(self, n_img: int) -> None:
        """Cut off the rows of metrics that are newer than the state a run goes on from."""
        rows = [row for row in self.read_metrics() if row["n_img"] <= n_img]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        partial = self.metrics.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.metrics)

    def save(self, n_img: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint `checkpoints/<n_img>`."""
        return save_checkpoint(self.checkpoints, f"{n_img:012d}", state)

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole rows of metrics.jsonl; a last line cut short by a crash is left out."""
        if not self.metrics.exists():
            return []
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows
