"""The loop around the steps: iterate, log, look, save."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from sidfast.base.errors import InputError
from sidfast.base.version import __version__
from sidfast.diffusion import Denoiser
from sidfast.distillation.checkpoint import fingerprint
from sidfast.distillation.config import DistillConfig
from sidfast.distillation.distiller import Distiller
from sidfast.distillation.generator import Generator
from sidfast.distillation.pictures import ROWS, grid_layout, save_curves, save_grid
from sidfast.distillation.progress import Progress
from sidfast.distillation.run import RunFolder

Callback = Callable[[Distiller, dict[str, Any]], None]


@dataclass(frozen=True)
class DistillResult:
    """What a run leaves behind.

    Attributes:
        generator: the averaged one-step generator.
        metrics: the rows of metrics.jsonl.
        path: the run's folder.
    """

    generator: Generator
    metrics: list[dict[str, Any]]
    path: Path


def distill(
    teacher: nn.Module,
    cfg: DistillConfig | None = None,
    *,
    out: str | Path = "runs/distill",
    references: Tensor | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    teacher_name: str | None = None,
) -> DistillResult:
    """Distil a teacher into a one-step generator (SiD, arXiv 2404.04057), on its own device.

    The run needs no data. Ctrl-C or SIGTERM ends it after the iteration under way, with a
    checkpoint from which `resume=True` continues to the same numbers, bit for bit.

    Args:
        teacher: a denoiser, see `sidfast.diffusion.Denoiser`.
        cfg: the run; None is `DistillConfig()`, or the run's own config when resuming.
        out: folder of the run.
        references: real images (N, C, H, W) in [-1, 1], only to measure the Fréchet distance on
            pixels along the way; None leaves the curve out.
        resume: continue the run in `out` from its newest checkpoint.
        callbacks: called as callback(distiller, row) after each logged iteration.
        teacher_name: what `load_teacher` would load it by, noted in the generator's file.

    Raises:
        InputError: teacher, config, references or folder do not fit.
        KeyboardInterrupt: after the state was saved.
    """
    run = RunFolder(out)
    state = None
    if resume:
        recorded, state = run.resume()
        if cfg is not None and cfg != recorded:
            raise InputError(
                expected=f"the config of the run at {run.path}",
                got="another one",
                fix="leave cfg out when resuming, or start a new run in another folder",
            )
        cfg = recorded
    distiller = Distiller(teacher, cfg)
    cfg = distiller.cfg
    quality = _quality_measure(references, teacher)
    if state is None:
        run.start(cfg)
    else:
        if state["teacher"] != fingerprint(teacher):
            raise InputError(
                expected=f"the teacher that the run at {run.path} began with",
                got="a teacher with other weights",
                fix="load the same teacher again",
            )
        distiller.load_state_dict(state["distiller"])
        run.forget_after(distiller.n_img)
    total = cfg.iterations * cfg.batch
    points = evaluation_points(cfg)
    columns, labels = grid_layout(cast(Denoiser, teacher).label_dim, cfg.class_probabilities)

    def save() -> None:
        state = {"teacher": fingerprint(teacher), "distiller": distiller.state_dict()}
        run.save(distiller.n_img, state)

    with Progress(total, distiller.n_img) as progress, _stop_request() as stop:
        began, first = time.monotonic(), distiller.n_img
        while distiller.n_img < total:
            metrics = distiller.step()
            n_img = distiller.n_img
            look = n_img in points
            if look or n_img % (cfg.log_every * cfg.batch) == 0:
                row: dict[str, Any] = {"n_img": n_img}
                row |= {name: value.item() for name, value in metrics.items()}
                row["images_per_second"] = (n_img - first) / (time.monotonic() - began)
                if look:
                    images = distiller.sample(ROWS * columns, labels=labels)
                    save_grid(images, run.samples / f"{n_img:012d}.png", columns)
                    row |= quality(distiller.sample(cfg.eval_samples)) if quality else {}
                run.write_row(row)
                progress.show(n_img, row)
                for callback in callbacks:
                    callback(distiller, row)
            if stop.is_set():
                save()
                raise KeyboardInterrupt(f"stopped after {n_img} images; state saved in {run.path}")
            if n_img == total or _due(cfg, n_img):
                save()
    record = {
        "teacher": teacher_name,
        "n_img": distiller.n_img,
        "config": dataclasses.asdict(cfg),
        "sidfast": __version__,
    }
    generator = Generator(distiller.generator.network, cfg.sigma_init, record)
    generator.save(run.generator)
    rows = run.read_metrics()
    save_curves(rows, run.curves)
    return DistillResult(generator, rows, run.path)


def evaluation_points(cfg: DistillConfig) -> frozenset[int]:
    """Image counts at which quality is measured: even in log images, first and last included."""
    if not cfg.evaluations:
        return frozenset()
    last, steps = cfg.iterations, cfg.evaluations - 1
    if not steps:
        return frozenset({cfg.batch * last})
    return frozenset(cfg.batch * round(last ** (i / steps)) for i in range(steps + 1))


def _due(cfg: DistillConfig, n_img: int) -> bool:
    if cfg.checkpoint_kimg is None:
        return False
    step = cfg.checkpoint_kimg * 1000
    return n_img // step > (n_img - cfg.batch) // step


def _quality_measure(
    references: Tensor | None, teacher: nn.Module
) -> Callable[[Tensor], dict[str, float]] | None:
    if references is None:
        return None
    denoiser = cast(Denoiser, teacher)
    channels, side = denoiser.img_channels, denoiser.img_resolution
    if references.shape[1:] != (channels, side, side):
        raise InputError(
            expected=f"references (N, {channels}, {side}, {side}), as the teacher's",
            got=tuple(references.shape),
            fix="pass real images of the teacher's size",
        )
    from sidfast.evaluate.frechet import pixel_frechet, pixel_stats

    stats = pixel_stats(references)
    return lambda images: {"frechet": pixel_frechet(images, stats)}


@contextmanager
def _stop_request() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one ends the program at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for each, handler in previous.items():
            signal.signal(each, handler)

    def request(*_: object) -> None:
        event.set()
        restore()

    for each in previous:
        signal.signal(each, request)
    try:
        yield event
    finally:
        restore()
