"""Turn pytest-benchmark's JSON into one Markdown table and one plot beside it.

Usage: python benchmarks/report.py results/cpu.json results/cpu.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COLUMNS = (
    "operator",
    "mode",
    "shape",
    "dtype",
    "layout",
    "threads",
    "median, ms",
    "spread, ms",
    "x eager",
    "x compile",
    "share of copy",
    "share of clone",
    "GB/s",
    "GFLOP/s",
    "error",
)
LEGEND = """
Each row was checked against the float64 definition before it was timed, and timed in turn with its
rivals, round by round, an untimed call before each timed one; times are medians, the spread is the
interquartile range. Freed memory was kept by the process (glibc's mallopt) for all alike.
`x eager` and `x compile`: time of the same mathematics in eager torch and under torch.compile over
ours. `share of copy`: time that torch takes to copy as many bytes as the operator must read and
write, between buffers that exist, over ours; `share of clone`: the same into fresh buffers, as an
operator must that returns a result. Rows of many calls on tiny tensors show the cost of calling:
there `x eager` is as many calls of torch.add over ours. GB/s and GFLOP/s count what the mathematics
needs. `error`: largest deviation from float64 over the largest exact magnitude.
"""


def label(row: dict[str, Any]) -> str:
    shape = "x".join(map(str, row["shape"]))
    threads = f"{row['threads']} thread" + "s" * (row["threads"] > 1)
    return f"{row['op']} {shape} {row['dtype']} {row['layout']}, {threads}"


def cells(row: dict[str, Any], stats: dict[str, float]) -> list[str]:
    median, rivals = stats["median"], row["rivals"]

    def over(name: str, form: str) -> str:
        return format(rivals[name] / median, form) if name in rivals else ""

    def rate(amount: float) -> str:
        return f"{amount / median / 1e9:.1f}" if amount else ""

    return [
        f"{row['op']} ({row['backend']})",
        row["mode"],
        "x".join(map(str, row["shape"])),
        row["dtype"],
        row["layout"],
        str(row["threads"]),
        f"{median * 1e3:.3f}",
        f"{stats['iqr'] * 1e3:.3f}",
        *(over(name, ".2f") for name in ("eager", "compile")),
        *(over(name, ".0%") for name in ("copy", "clone")),
        rate(row["bytes"]),
        rate(row["flops"]),
        f"{row['error']:.1e}",
    ]


def table(results: dict[str, Any]) -> str:
    """The Markdown page, but for its title and plot."""
    rows = [cells(each["extra_info"], each["stats"]) for each in results["benchmarks"]]
    lines = [" | ".join(row) for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    machine = ", ".join(f"{name} {value}" for name, value in results["machine_info"].items())
    body = "\n".join(f"| {line} |" for line in lines)
    return f"{machine.replace('_', ' ')}\n{LEGEND}\n{body}\n"


def plot(results: dict[str, Any], path: Path) -> None:
    """Speed-up over eager and over torch.compile, a pair of bars per row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [(each["extra_info"], each["stats"]["median"]) for each in results["benchmarks"]]
    figure, axes = pyplot.subplots(figsize=(9, 0.55 * len(rows) + 1), layout="constrained")
    for shift, name in ((-0.2, "eager"), (0.2, "compile")):
        raced = [i for i, (row, _) in enumerate(rows) if name in row["rivals"]]
        ratios = [rows[i][0]["rivals"][name] / rows[i][1] for i in raced]
        bars = axes.barh([i + shift for i in raced], ratios, height=0.38, label=f"over {name}")
        axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [label(row) for row, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("times as fast, same run")
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path)
    parser.add_argument("markdown", type=Path)
    paths = parser.parse_args()
    results = json.loads(paths.json.read_text())
    picture = paths.markdown.with_suffix(".png")
    plot(results, picture)
    page = f"# Benchmarks\n\n{table(results)}\n![Speed-up]({picture.name})\n"
    paths.markdown.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
