"""Put the measured tables into the README, between their markers.

Usage: python benchmarks/readme.py   (after `make bench` and examples/digits_quality.py)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
RESULTS = HERE / "results"

sys.path.insert(0, str(HERE.parent / "examples"))


def speed() -> str:
    """float32, contiguous rows of the benchmark: ratios alone."""
    results = json.loads((RESULTS / "cpu.json").read_text())
    lines = [
        "| | shape | threads | × eager | × torch.compile | share of copy bandwidth |",
        "|---|---|---|---|---|---|",
    ]
    for each in results["benchmarks"]:
        row, median = each["extra_info"], each["stats"]["median"]
        if row["dtype"] != "float32" or row["layout"] != "contiguous":
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


def quality() -> str:
    """Means over seeds of the digits runs."""
    from digits_quality import table

    results = json.loads((RESULTS / "digits.json").read_text())
    length = f"After {results['kimg']:g} thousand images a run, by `examples/digits_quality.py`."
    return f"{table(results['runs'])}\n{length}\n\n![curves](benchmarks/results/digits.png)\n"


def main() -> None:
    text = README.read_text(encoding="utf-8")
    for name, made in (("speed", speed()), ("quality", quality())):
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, rest = text.split(begin)
        after = rest.split(end, 1)[1]
        text = f"{before}{begin}{made}{end}{after}"
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
