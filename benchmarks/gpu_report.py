"""Turn the JSON of a GPU run into its page and into the README's table.

Usage: python benchmarks/gpu_report.py results/h100.json > results/h100.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

OURS = ("triton", "cuda", "native")
OPERATORS = """
Every back end was checked against float64 before it was timed; a wrong one has no time. Times are
medians on the device (CUDA events), the spread is the interquartile range; rivals took turns, with
cold caches, and the host far enough ahead not to be waited for. `× eager`, `× compile` and
`× library` (torch's fused functions): their time over ours. `share of copy`: the time that torch
takes to copy as many bytes as must be read and written, over ours. `launches`: what one call makes
the device do. A forward pass that makes the gradients stands against forward and backward of its
rivals; the backward pass after it is a launch that looks at the upstream gradient, and leaves alone
what was made for it.
"""
CALLS = """
Microseconds of the host's time for one call on 2×1×4×4 tensors, forward alone.
"""
BASELINE = """
One iteration as the method's authors write it, in eager torch on EDM's CIFAR-10 network, in rounds
of gradient accumulation. Milliseconds by phase, medians; precisions are those inside the networks.
"""
ROUNDING = """
‖d‖ / ‖rounding error of d‖, d = T − F on the trained digits after so many updates of the fake score
with a rate of 1e-5; the truth is float64's.
"""


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def machine(results: dict[str, Any]) -> str:
    """Hardware and versions, in a line."""
    named = {name: value for name, value in results["machine"].items() if value not in ("", None)}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in named.items())


def ratio(times: dict[str, Any], rival: str, name: str, form: str = ".2f") -> str:
    if rival not in times or name not in times:
        return "–"
    return format(times[rival]["median"] / times[name]["median"], form)


def shape_of(row: dict[str, Any]) -> str:
    return "×".join(map(str, row.get("shape", ())))


def parts(results: dict[str, Any]) -> str:
    rows = []
    for name, part in results["parts"].items():
        notes = [f"{count} {what}" for what, count in part.get("counts", {}).items()]
        notes += [f"unfinished: {each}" for each in part["unfinished"]]
        notes += [f"failed: {each}" for each in part["failed"]]
        rows.append((name, part["outcome"], f"{part['seconds']:.0f}", "; ".join(notes)))
    text = table(("part", "outcome", "seconds", ""), rows)
    failures = [each for part in results["parts"].values() for each in part.get("failures", ())]
    if failures:
        text += "\nTests that failed:\n\n" + "".join(f"- `{name}`\n" for name in failures)
    return text


def floors(found: dict[str, Any]) -> str:
    products = ", ".join(f"{k} {v:.0f}" for k, v in found["gemm_TFLOP_per_s"].items())
    return (
        f"Floors of this run: copies {found['copy_GB_per_s']:.0f} GB/s (read and written), "
        f"products of 8192×8192 matrices {products} TFLOP/s.\n"
    )


def operators(rows: list[dict[str, Any]]) -> str:
    header = (
        "operator",
        "mode",
        "shape",
        "dtype",
        "layout",
        "back end",
        "median, ms",
        "spread, ms",
    )
    header += ("× eager", "× compile", "× library", "share of copy", "GB/s", "launches", "error")
    lines: list[list[str]] = []
    for row in rows:
        times = row.get("times", {})
        start = [
            row["op"],
            row.get("mode", ""),
            shape_of(row),
            row.get("dtype", ""),
            row.get("layout", ""),
        ]
        for name in (*row.get("ours", ()), *(n for n in ("eager", "compile") if n in times)):
            if name not in times:
                lines.append([*start, name, "–", *["–"] * 7, row["failures"].get(name, "")])
                continue
            median = times[name]["median"]
            lines.append(
                [
                    *start,
                    name,
                    f"{1e3 * median:.3f}",
                    f"{1e3 * times[name]['iqr']:.3f}",
                    *(ratio(times, rival, name) for rival in ("eager", "compile", "library")),
                    ratio(times, "copy", name, ".0%"),
                    f"{row['bytes'] / median / 1e9:.0f}",
                    str(row["launches"].get(name, "–")),
                    f"{row['errors'][name]:.1e}" if name in row["errors"] else "",
                ]
            )
        if not times:
            lines.append([*start, "", *["–"] * 8, "; ".join(row["failures"].values())])
    return table(header, lines)


def calls(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(row["op"] for row in rows))
    found = {(row["op"], row["gradient"]): row["us"] for row in rows}
    both = (
        [f"{found[name, False]:.1f}" for name in names],
        [f"{found[name, True]:.1f}" for name in names],
    )
    plain, gradient = both
    return table(("", *names), [("without gradient", *plain), ("inputs want gradients", *gradient)])


def digits(found: dict[str, Any]) -> str:
    text = (
        f"{found['iterations']} iterations of batch {found['batch']}: {found['seconds']:.1f} s, "
        f"{found['ms_per_iteration']:.1f} ms each. Fréchet distance on pixels of "
        f"{found['samples']} samples to {found['reference']}: {found['frechet_start']:.3f} at the "
        f"start, {found['frechet_end']:.3f} at the end, teacher {found['frechet_teacher']:.3f}; "
        f"{found['skipped']} updates skipped."
    )
    if "launches" in found:
        text += (
            f" One iteration: {found['launches']} launches, the host waits {found['waits']} times."
        )
    return text + "\n"


def baseline(found: dict[str, Any]) -> str:
    measured = [row for row in found["iterations"] if "ms" in row]
    text = ""
    if measured:
        names = [f"{row['precision']}, batch {row['batch']}" for row in measured]
        lines = [
            ("images per round", *(row["per_round"] for row in measured)),
            ("whole iteration, ms", *(f"{row['ms']:.1f}" for row in measured)),
            ("images/s", *(f"{row['images_per_s']:.0f}" for row in measured)),
            *(
                (phase, *(f"{row['phases_ms'][phase]:.1f}" for row in measured))
                for phase in measured[0]["phases_ms"]
            ),
            *(
                (name, *(row.get(key, "–") for row in measured))
                for key, name in (("launches", "launches"), ("waits", "waits of the host"))
            ),
            *(
                (name, *(f"{row[key]:.1f}" if key in row else "–" for row in measured))
                for key, name in (
                    ("device_ms", "device busy, ms"),
                    ("peak_GiB", "peak memory, GiB"),
                )
            ),
        ]
        text += table(("", *names), lines)
        for name, row in zip(names, measured, strict=True):
            if "kernels" in row:
                kernels = [(k["name"], k["calls"], f"{k['ms']:.2f}") for k in row["kernels"]]
                text += f"\n{name}, what takes most:\n\n" + table(
                    ("kernel", "calls", "ms"), kernels
                )
    for row in found["iterations"]:
        if "failure" in row:
            text += f"\n{row['precision']}, batch {row['batch']}: {row['failure']}\n"
    if found["rounding"]:
        modes = list(found["rounding"][0]["ratios"])
        lines = [
            (row["updates"], f"{row['d_over_T']:.1e}", *(f"{row['ratios'][m]:.3g}" for m in modes))
            for row in found["rounding"]
        ]
        text += ROUNDING + "\n" + table(("updates", "‖d‖ / ‖T‖", *modes), lines)
    return text


def page(results: dict[str, Any]) -> str:
    """The whole run."""
    gpu = results["machine"]["gpu"]
    sections = [f"# {gpu}" if gpu else "# Rehearsal on a CPU: no number here says anything"]
    sections += [machine(results) + "\n", parts(results)]
    found = results.get("operators", {})
    if "floors" in found:
        sections += ["## Operators", floors(found["floors"])]
        sections += [f"CUDA library: {found['cuda_library']}.", OPERATORS]
        sections.append(operators(found["contests"]))
    if "small_calls" in found:
        sections += ["## What a call costs", CALLS, calls(found["small_calls"])]
    if "digits" in results:
        sections += ["## The digits demo", digits(results["digits"])]
    if "baseline" in results:
        sections += ["## Baseline", BASELINE, baseline(results["baseline"])]
    return "\n".join(sections)


def readme(results: dict[str, Any]) -> str:
    """float32 rows with a back end of ours: ratios alone."""
    lines = []
    for row in results.get("operators", {}).get("contests", ()):
        times = row.get("times", {})
        for name in OURS:
            if name in times and row["dtype"] == "float32":
                lines.append(
                    (
                        f"{row['op']}, {row['mode']}",
                        f"{shape_of(row)} {row['layout']}",
                        name,
                        ratio(times, "eager", name),
                        ratio(times, "compile", name),
                        ratio(times, "copy", name, ".0%"),
                    )
                )
    header = ("", "shape", "back end", "× eager", "× torch.compile", "share of copy bandwidth")
    return table(header, lines) + f"\nMeasured side by side in one run: {machine(results)}.\n"


if __name__ == "__main__":
    print(page(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")
