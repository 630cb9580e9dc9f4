"""Put the measured tables into the README, between their markers.

Usage: python benchmarks/readme.py   (after `make bench`, `make gpu` or examples/digits_quality.py)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gpu_report

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
RESULTS = HERE / "results"

sys.path.insert(0, str(HERE.parent / "examples"))


def speed() -> str:
    """Rows of the benchmark in float32, the usual layout: ratios alone."""
    results = json.loads((RESULTS / "cpu.json").read_text())
    lines = [
        "| | shape | threads | × eager | × torch.compile | share of copy bandwidth |",
        "|---|---|---|---|---|---|",
    ]
    for each in results["benchmarks"]:
        row, median = each["extra_info"], each["stats"]["median"]
        usual = row["layout"] == "contiguous" or row["op"] == "adam_ema"
        if row["dtype"] != "float32" or not usual:
            continue
        rivals = row["rivals"]
        compiled = f"{rivals['compile'] / median:.1f}" if "compile" in rivals else "–"
        copied = f"{rivals['copy'] / median:.0%}" if "copy" in rivals else "–"
        shape = "×".join(map(str, row["shape"]))
        lines.append(
            f"| {row['op']}, {row['mode']} | {shape} | {row['threads']} "
            f"| {rivals['eager'] / median:.2f} | {compiled} | {copied} |"
        )
    machine = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in results["machine_info"].items())
    return "\n".join(lines) + f"\n\nMeasured side by side in one run: {machine}.\n"


def gpu() -> str:
    """Each GPU that `make gpu` has run on."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    runs = [results for results in found if "gpu" in results.get("machine", ())]
    if not runs:
        return "On GPUs: not yet run on one.\n"
    return "\n".join(f"{run['machine']['gpu']}:\n\n{gpu_report.readme(run)}" for run in runs)


def quality() -> str:
    """Means over seeds of the digits runs, class-conditional and longest first, and its curves."""
    from digits_quality import table

    pages = {
        path.stem: json.loads(path.read_text()) for path in (RESULTS / "quality").glob("*.json")
    }
    order = sorted(pages, key=lambda stem: (pages[stem]["teacher"], pages[stem]["kimg"]))[::-1]
    picture = f"![curves](benchmarks/results/quality/{order[0]}.png)"
    made = (
        "Ratios are means of each seed's own. By `examples/digits_quality.py`; curves of the first:"
    )
    return f"{table([pages[stem] for stem in order])}\n{made}\n\n{picture}\n"


def main() -> None:
    text = README.read_text(encoding="utf-8")
    for name, made in (("speed", speed()), ("gpu", gpu()), ("quality", quality())):
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, rest = text.split(begin)
        after = rest.split(end, 1)[1]
        text = f"{before}{begin}{made}{end}{after}"
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
