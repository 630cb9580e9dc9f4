"""The progress line: images, images/s, both losses, time left, latest Fréchet distance."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Progress:
    """A live bar on a terminal, a plain line now and then elsewhere.

    Args:
        total: images of the whole run.
        done: images seen when this part of the run begins.
        every: seconds between plain lines.
    """

    def __init__(self, total: int, done: int, *, every: float = 15.0) -> None:
        self._total, self._begun_at = total, done
        self._start = self._last = time.monotonic()
        self._every = every
        self._frechet: float | None = None
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("distilling"),
                progress.BarColumn(),
                progress.TextColumn("{task.completed}/{task.total} images"),
                progress.TextColumn("{task.fields[numbers]}"),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "", total=self._total, completed=self._begun_at, numbers=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, n_img: int, row: dict[str, Any]) -> None:
        """Show a row of metrics."""
        now = time.monotonic()
        rate = (n_img - self._begun_at) / max(now - self._start, 1e-9)
        numbers = f"{rate:.0f}/s"
        if "fake_loss" in row:
            numbers += f"  fake {row['fake_loss']:.1f}  generator {row['generator_loss']:.2f}"
        self._frechet = row.get("frechet", self._frechet)
        if self._frechet is not None:
            numbers += f"  Fréchet {self._frechet:.3f}"
        if row.get("skipped"):
            numbers += f"  skipped {row['skipped']}"
        if self._bar is not None:
            self._bar.update(self._task, completed=n_img, numbers=numbers)
        elif now - self._last > self._every or n_img >= self._total:
            self._last = now
            left = (self._total - n_img) / max(rate, 1e-9)
            line = f"{n_img}/{self._total} images  {numbers}  {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)
