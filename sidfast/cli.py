"""The command line: distill, sample, evaluate, info."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import sidfast
from sidfast.base.errors import InputError, SidfastError

if TYPE_CHECKING:
    from torch import Tensor

    from sidfast.distillation import DistillConfig, Generator


DIGITS = ("digits", "digits-cond")
SETTINGS = ("recipe", "config", "alpha", "batch", "kimg", "lr", "seed", "set")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 is success, 2 bad input, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (SidfastError, OSError) as error:
        print(f"sidfast: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"\nsidfast: {stop}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidfast",
        description="Turn a pretrained diffusion model into a one-step generator "
        "(Score identity Distillation, arXiv 2404.04057).",
    )
    parser.add_argument("--version", action="version", version=f"sidfast {sidfast.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    distill = commands.add_parser(
        "distill",
        help="distil a teacher into a run folder",
        description="Distil a teacher. Ctrl-C saves; --resume goes on to the same numbers.",
    )
    distill.add_argument("teacher", help="digits, digits-cond, or a teacher's .safetensors file")
    distill.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder")
    distill.add_argument(
        "--recipe",
        metavar="NAME",
        help="start from these settings: digits (default for the digits teachers), "
        "cifar10-uncond, cifar10-cond, imagenet64, ffhq64, afhqv2-64",
    )
    distill.add_argument("--config", type=Path, metavar="FILE", help="YAML with settings")
    distill.add_argument("--alpha", help="weight of the biased term; the paper: 1.0 or 1.2")
    distill.add_argument("--batch", help="images per iteration")
    distill.add_argument("--kimg", help="length of the run in thousands of images")
    distill.add_argument("--lr", help="learning rate of both networks")
    distill.add_argument("--seed", help="of everything random")
    distill.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, see --dry-run for their names; may be repeated",
    )
    distill.add_argument("--device", default=None, help="cpu, cuda, cuda:1 ... (default: best)")
    distill.add_argument("--resume", action="store_true", help="continue the run in --out")
    distill.add_argument("--dry-run", action="store_true", help="print the config and stop")
    distill.add_argument(
        "--no-evaluate", action="store_true", help="leave out the table and picture at the end"
    )
    distill.set_defaults(run=_distill)

    sample = commands.add_parser("sample", help="draw images from a run or generator file")
    sample.add_argument("source", type=Path, help="run folder or generator.safetensors")
    sample.add_argument("-n", type=int, default=64, help="number of images (64)")
    sample.add_argument(
        "-o", "--out", type=Path, default=Path("grid.png"), help=".png for a grid, .npy for floats"
    )
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--label", type=int, help="class of all images")
    sample.add_argument("--device", default=None)
    sample.set_defaults(run=_sample)

    evaluate = commands.add_parser(
        "evaluate",
        help="measure a run's generator against its teacher and real images",
        description="The protocol: n clamped, 8-bit samples of generator and teacher against "
        "the same real images, real against real as the floor.",
    )
    evaluate.add_argument("source", type=Path, help="run folder")
    evaluate.add_argument("-n", type=int, default=10_000, help="samples of each (10000)")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--device", default=None)
    evaluate.set_defaults(run=_evaluate)

    info = commands.add_parser("info", help="versions, devices and back ends of this machine")
    info.set_defaults(run=lambda _: print(sidfast.info()))
    return parser


def _distill(arguments: argparse.Namespace) -> None:
    if arguments.resume and any(getattr(arguments, name) for name in SETTINGS):
        raise InputError(
            expected="--resume without settings: a run goes on with its own",
            got="settings",
            fix="leave them out, or start a new run in another folder",
        )
    cfg = None if arguments.resume else _resolve(arguments)
    if arguments.dry_run:
        print((cfg or sidfast.DistillConfig.read(arguments.out / "config.yaml")).to_yaml(), end="")
        return
    teacher = sidfast.load_teacher(arguments.teacher).to(_device(arguments.device))
    is_digits = arguments.teacher in DIGITS
    try:
        result = sidfast.distill(
            teacher,
            cfg,
            out=arguments.out,
            references=_digits("train") if is_digits else None,
            resume=arguments.resume,
            teacher_name=arguments.teacher,
        )
    except KeyboardInterrupt as stop:
        command = f"sidfast distill {arguments.teacher} --out {arguments.out} --resume"
        raise KeyboardInterrupt(f"{stop}\ncontinue with: {command}") from None
    print(f"generator: {result.path / 'generator.safetensors'}")
    if is_digits and not arguments.no_evaluate:
        _report(result.generator, teacher, result.path)


def _resolve(arguments: argparse.Namespace) -> DistillConfig:
    """Recipe, then YAML file, then flags, then --set; the later wins."""
    from sidfast.recipes import RECIPES

    name = arguments.recipe or ("digits" if arguments.teacher in DIGITS else None)
    if name is not None and name not in RECIPES:
        raise InputError(
            expected=f"a recipe among {', '.join(RECIPES)}", got=repr(name), fix="name one of them"
        )
    values: dict[str, Any] = dataclasses.asdict(RECIPES[name]()) if name else {}
    if arguments.config is not None:
        values |= sidfast.DistillConfig.read_values(arguments.config)
    for flag in ("alpha", "batch", "kimg", "lr", "seed"):
        if getattr(arguments, flag) is not None:
            values[flag] = getattr(arguments, flag)
    for setting in arguments.set:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(expected="--set NAME=VALUE", got=repr(setting), fix="add the value")
        values[key] = None if value in ("none", "None", "null") else value
    return sidfast.DistillConfig.parse(values)


def _sample(arguments: argparse.Namespace) -> None:
    generator = sidfast.load_generator(arguments.source, device=_device(arguments.device))
    images = generator.sample(arguments.n, seed=arguments.seed, labels=arguments.label)
    _write_images(images, arguments.out)
    print(f"{arguments.n} images: {arguments.out}")


def _write_images(images: Any, path: Path) -> None:
    from sidfast.distillation.pictures import save_grid

    if path.suffix not in (".png", ".npy"):
        raise InputError(
            expected="an output file ending in .png or .npy",
            got=str(path),
            fix=".png is a grid to look at, .npy the float images",
        )
    try:
        if path.suffix == ".png":
            save_grid(images, path)
        else:
            import numpy as np

            np.save(path, images.cpu().numpy())
    except OSError as error:
        raise InputError(
            expected=f"to write {path}", got=str(error), fix="choose another place"
        ) from error


def _evaluate(arguments: argparse.Namespace) -> None:
    device = _device(arguments.device)
    generator = sidfast.load_generator(arguments.source, device=device)
    name = generator.record.get("teacher") or ""
    if name not in DIGITS:
        raise InputError(
            expected="a run distilled from the digits teachers, whose real images are at hand",
            got=f"teacher {name!r}",
            fix="call sidfast.evaluate from Python with your own reference images",
        )
    teacher = sidfast.load_teacher(name).to(device)
    folder = arguments.source if arguments.source.is_dir() else arguments.source.parent
    _report(generator, teacher, folder, arguments.n, arguments.seed)


def _report(
    generator: Generator, teacher: Any, folder: Path, n: int = 10_000, seed: int = 0
) -> None:
    """Measure, print the table, and leave evaluation.json, evaluation.md and result.png."""
    import json

    from rich.console import Console

    from sidfast.distillation.pictures import ROWS, grid_layout, save_curves, save_summary
    from sidfast.distillation.run import RunFolder
    from sidfast.evaluate import TeacherSampler, evaluate

    console, slow = Console(), TeacherSampler(teacher)
    measuring = f"measuring {n} samples of generator and teacher ..."
    if not console.is_terminal:  # which gets a spinner
        print(measuring, flush=True)
    with console.status(measuring):
        report = evaluate(generator, slow, _digits("train"), _digits("heldout"), n=n, seed=seed)
    console.print(report.table())
    (folder / "evaluation.json").write_text(json.dumps(report.as_dict(), indent=1))
    (folder / "evaluation.md").write_text(report.markdown())
    rows = RunFolder(folder).read_metrics()
    level = report.teacher.frechet_pixels
    if rows:
        save_curves(rows, folder / "curves.png", level)
    columns, labels = grid_layout(teacher.label_dim)
    made, taught = (each.sample(ROWS * columns, seed, labels) for each in (generator, slow))
    fit = save_summary(made, taught, columns, rows, folder / "result.png", level)
    if fit is not None:
        print(f"log10 Fréchet distance against log10 images: {fit}")
    print(f"picture: {folder / 'result.png'}")


def _digits(split: Literal["train", "heldout"]) -> Tensor:
    from sidfast.data import digits

    return digits(split)[0]


def _device(name: str | None) -> Any:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            expected="a device that torch can use here",
            got=f"{name!r} ({str(error).splitlines()[0]})",
            fix="use cpu, or see sidfast info",
        ) from error
    return device
