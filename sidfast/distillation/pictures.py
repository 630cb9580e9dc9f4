"""What a person looks at: sample grids and the quality curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GREY = 90
ROWS, MOST_CLASSES = 8, 10


@dataclass(frozen=True)
class Fit:
    """Line through a curve on log-log axes: log10 y = intercept + slope * log10 x."""

    slope: float
    intercept: float
    r2: float

    def __str__(self) -> str:
        return f"slope {self.slope:.2f}, R² {self.r2:.3f}"


def fit_power_law(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """Least squares in log10 x and log10 y; None with fewer than three points.

    The paper's claim 'exponentially fast' is that log FID falls linearly in log images.
    """
    if len(x) < 3:
        return None
    u, v = np.log10(np.asarray(x)), np.log10(np.asarray(y))
    slope, intercept = np.polyfit(u, v, 1)
    residual = float(((v - intercept - slope * u) ** 2).sum())
    spread = float(((v - v.mean()) ** 2).sum())
    return Fit(float(slope), float(intercept), 1 - residual / spread if spread else math.nan)


def grid_array(images: Tensor, columns: int | None = None, gap: int = 1) -> np.ndarray:
    """Tile images (N, C, H, W) in [-1, 1] among grey lines of `gap` pixels.

    Returns:
        uint8 array (rows·(H+gap)+gap, columns·(W+gap)+gap[, 3]).
    """
    n, channels, height, width = images.shape
    height, width = height + gap, width + gap
    columns = columns or math.isqrt(n - 1) + 1
    rows = -(-n // columns)
    pixels = ((images.detach().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    canvas = pixels.new_full((rows * columns, channels, height, width), GREY)
    canvas[:n, :, : height - gap, : width - gap] = pixels
    canvas = canvas.reshape(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    array = canvas.reshape(rows * height, columns * width, channels).numpy()
    array = np.pad(array, ((gap, 0), (gap, 0), (0, 0)), constant_values=GREY)
    return array[..., 0] if channels == 1 else array[..., :3]


def grid_layout(label_dim: int, shares: Sequence[float] | None = None) -> tuple[int, Tensor | None]:
    """How a run shows its samples: the number of columns, and a class for each of 8 rows of them.

    A column holds one class: of many classes ten evenly spaced ones are shown, of few each in
    several columns. Without classes there are eight columns and no labels.

    Args:
        shares: of the classes in training; one of share 0 is not shown.
    """
    if not label_dim:
        return ROWS, None
    classes = torch.tensor([k for k in range(label_dim) if shares is None or shares[k] > 0])
    few = min(len(classes), MOST_CLASSES)
    shown = classes[torch.linspace(0, len(classes) - 1, few).round().long()]
    row = shown.repeat_interleave(max(ROWS // few, 1))
    return len(row), row.repeat(ROWS)


def save_grid(images: Tensor, path: Path, columns: int | None = None, least: int = 512) -> None:
    """Write a sample grid as PNG, enlarged by a whole factor to at least `least` pixels."""
    from PIL import Image

    array = grid_array(images, columns)
    factor = max(1, -(-least // array.shape[1]))
    Image.fromarray(array.repeat(factor, 0).repeat(factor, 1)).save(path)


def quality_points(rows: Sequence[dict]) -> tuple[list[float], list[float]]:
    """Images seen and Fréchet distance, from the metrics rows that hold one."""
    points = [(row["n_img"], row["frechet"]) for row in rows if "frechet" in row]
    return [x for x, _ in points], [y for _, y in points]


def plot_curve(
    axes: Any, n_img: Sequence[float], frechet: Sequence[float], level: float | None
) -> Fit | None:
    """Draw Fréchet distance against images, log-log, with the fitted line.

    Args:
        axes: matplotlib axes.
        level: the teacher's distance, drawn as a line where known.
    """
    if not n_img:
        axes.set_axis_off()
        return None
    axes.loglog(n_img, frechet, "o-", markersize=3, label="one-step generator")
    if fit := fit_power_law(n_img, frechet):
        line = 10 ** (fit.intercept + fit.slope * np.log10(np.asarray(n_img)))
        axes.loglog(n_img, line, "--", linewidth=1, color="grey", label=f"power law: {fit}")
    if level is not None:
        axes.axhline(level, color="tab:green", linewidth=1, label="teacher, 35 network calls")
    axes.set(xlabel="images seen", ylabel="Fréchet distance (pixels)")
    _label_decades(axes)
    axes.legend(frameon=False, fontsize=8)
    return fit


def _label_decades(axes: Any) -> None:
    """Leave the ticks between powers of ten without numbers, which would overlap."""
    from matplotlib.ticker import NullFormatter

    axes.xaxis.set_minor_formatter(NullFormatter())


def save_curves(rows: Sequence[dict], path: Path, level: float | None = None) -> None:
    """Write losses and Fréchet distance of a run, from its metrics rows, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    quality, losses = figure.subplots(1, 2)
    plot_curve(quality, *quality_points(rows), level)
    for name in ("fake_loss", "generator_loss"):
        drawn = [(row["n_img"], row[name]) for row in rows if name in row]
        losses.plot(
            [x for x, _ in drawn],
            [y for _, y in drawn],
            linewidth=0.8,
            label=name.replace("_", " "),
        )
    losses.set_xscale("log")
    losses.set_yscale("symlog")
    losses.set(xlabel="images seen", ylabel="loss per sample (linear from -1 to 1)")
    _label_decades(losses)
    losses.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def save_summary(
    generator: Tensor,
    teacher: Tensor,
    columns: int,
    rows: Sequence[dict],
    path: Path,
    level: float | None,
) -> Fit | None:
    """Write the one picture of a run: generator beside teacher beside the quality curve.

    Args:
        generator, teacher: samples (N, C, H, W) to show in `columns` columns.
        rows: of the run's metrics.
        level: the teacher's distance, where known.

    Returns:
        The line fitted to the curve.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes, images, title in (
        (left, generator, "generator: 1 network call"),
        (middle, teacher, "teacher: 35 network calls"),
    ):
        axes.imshow(
            grid_array(images, columns), cmap="gray", vmin=0, vmax=255, interpolation="nearest"
        )
        axes.set_title(title)
        axes.axis("off")
    fit = plot_curve(right, *quality_points(rows), level)
    figure.savefig(path, dpi=120)
    return fit
