"""How good is a digits generator? Three seeds, alpha 1.0 and 1.2, against its teacher.

    python examples/digits_quality.py --teacher digits-cond --kimg 500 --runs runs/quality

Each run is `sidfast distill digits-cond --kimg ...`, the demo's but for its length; its generator
is measured by the protocol of `sidfast evaluate` on samples of its own seed, the teacher once per
seed. Writes <teacher>_<kimg>_kimg.json, .md and .png. Runs that are already there are not repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

import sidfast
from sidfast.data import digits
from sidfast.distillation.pictures import fit_power_law, quality_points
from sidfast.distillation.run import RunFolder
from sidfast.evaluate import (
    Quality,
    TeacherSampler,
    Yardstick,
    digits_classifier,
    evaluate,
    measure,
)

COLUMNS = (
    "",
    "Fréchet, pixels",
    "ratio to teacher",
    "Fréchet, features",
    "KID × 10³",
    "precision",
    "recall",
    "close copies",
    "slope (R²)",
    "warnings",
)


def distilled(folder: Path, teacher: str, cfg: sidfast.DistillConfig) -> None:
    """Make the run if it is not there."""
    if not (folder / "generator.safetensors").exists():
        sidfast.distill(
            sidfast.load_teacher(teacher),
            cfg,
            out=folder,
            references=digits("train")[0],
            teacher_name=teacher,
        )


def collect(
    runs: Path, teacher: str, alphas: list[float], seeds: list[int], kimg: float, n: int
) -> list[dict[str, Any]]:
    """One record per run: its report, curve and fit."""
    references, heldout = digits("train")[0], digits("heldout")[0]
    teachers: dict[int, Quality] = {}
    records = []
    for alpha in alphas:
        for seed in seeds:
            folder = runs / f"{teacher}-alpha{alpha}-seed{seed}"
            distilled(folder, teacher, sidfast.recipes.digits(alpha=alpha, seed=seed, kimg=kimg))
            if seed not in teachers:
                yardstick = Yardstick(references, heldout, digits_classifier(), seed=seed)
                sampler = TeacherSampler(sidfast.load_teacher(teacher))
                teachers[seed] = measure(sampler, yardstick, n=n, seed=seed)
            generator = sidfast.load_generator(folder)
            report = evaluate(generator, teachers[seed], references, heldout, n=n, seed=seed)
            x, y = quality_points(RunFolder(folder).read_metrics())
            fit = fit_power_law(x, y)
            records.append(
                {
                    "alpha": alpha,
                    "seed": seed,
                    "report": report.as_dict(),
                    "curve": [x, y],
                    "fit": None if fit is None else [fit.slope, fit.r2],
                }
            )
            print(f"alpha {alpha} seed {seed}: {report.frechet_ratio:.2f} x teacher", flush=True)
    return records


def table(pages: Sequence[dict[str, Any]]) -> str:
    """Means over the seeds (least to greatest in brackets), a line for each teacher and alpha."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    teachers: dict[str, dict[int, dict[str, Any]]] = {}
    for page in pages:
        name = page["teacher"]
        for alpha in sorted({record["alpha"] for record in page["runs"]}):
            runs = [record for record in page["runs"] if record["alpha"] == alpha]
            title = f"{name}, {page['kimg']:g} kimg, α {alpha}, {_counted(runs)}"
            lines.append(_row(title, [run["report"]["generator"] for run in runs], runs))
        measured = {run["seed"]: run["report"]["teacher"] for run in page["runs"]}
        teachers[name] = measured | teachers.get(name, {})
    for name, seeds in teachers.items():
        lines.append(_row(f"teacher {name}, {_counted(seeds)}", list(seeds.values()), []))
    lines.append(_row("real held-out, 297", [pages[0]["runs"][0]["report"]["real"]], []))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _counted(seeds: Collection[Any]) -> str:
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"


def _row(name: str, rows: list[dict[str, Any]], runs: list[dict[str, Any]]) -> list[str]:
    def mean(key: str, scale: float = 1, digits: int = 3) -> str:
        values = [row[key] * scale for row in rows]
        text = f"{statistics.mean(values):.{digits}f}"
        if len(values) > 1:
            text += f" ({min(values):.{digits}f}–{max(values):.{digits}f})"
        return text

    ratios = [run["report"]["frechet_ratio"] for run in runs]
    fits = [run["fit"] for run in runs if run["fit"]]
    return [
        name,
        mean("frechet_pixels"),
        f"{statistics.mean(ratios):.2f}" if ratios else "–",
        mean("frechet_features"),
        mean("kid", 1e3, 1),
        mean("precision", digits=2),
        mean("recall", digits=2),
        f"{statistics.mean(row['neighbours']['copies'] for row in rows):.1%}",
        f"{statistics.mean(s for s, _ in fits):.2f} ({statistics.mean(r for _, r in fits):.2f})"
        if fits
        else "–",
        str(sum(line.startswith("generator") for run in runs for line in run["report"]["warnings"]))
        if runs
        else "–",
    ]


def plot(page: dict[str, Any], path: Path) -> None:
    """All curves on log-log axes, with the protocol's results: each end, and the teacher's level.

    Along the way fewer samples are drawn, which makes distances larger.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    records, few = page["runs"], sidfast.recipes.digits().eval_samples
    alphas = sorted({record["alpha"] for record in records})
    for record in records:
        alpha, (x, y) = record["alpha"], record["curve"]
        colour = f"C{alphas.index(alpha)}"
        named = record["seed"] == records[0]["seed"]
        axes.loglog(x, y, color=colour, linewidth=1, label=f"α {alpha}, {few:,} samples" * named)
        end = record["report"]["generator"]["frechet_pixels"]
        label = f"α {alpha}, {page['samples']:,} samples" * named
        axes.loglog(x[-1], end, "o", color=colour, label=label)
    level = statistics.mean(r["report"]["teacher"]["frechet_pixels"] for r in records)
    axes.axhline(level, color="black", linestyle=":", label="teacher, 35 network calls")
    axes.set(xlabel="images seen", ylabel="Fréchet distance (pixels)", ylim=(0.8 * level, None))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", choices=["digits", "digits-cond"], default="digits-cond")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality"))
    parser.add_argument("--alphas", type=float, nargs="*", default=[1.0, 1.2])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--kimg", type=float, default=500.0)
    parser.add_argument("-n", type=int, default=10_000)
    args = parser.parse_args()
    records = collect(args.runs, args.teacher, args.alphas, args.seeds, args.kimg, args.n)
    args.out.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    page = {
        "versions": versions,
        "teacher": args.teacher,
        "kimg": args.kimg,
        "samples": args.n,
        "runs": records,
    }
    stem = f"{args.teacher}_{args.kimg:g}_kimg"
    (args.out / f"{stem}.json").write_text(json.dumps(page, indent=1) + "\n")
    plot(page, args.out / f"{stem}.png")
    text = f"# Quality of digits generators\n\n{table([page])}\n![curves]({stem}.png)\n"
    (args.out / f"{stem}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
