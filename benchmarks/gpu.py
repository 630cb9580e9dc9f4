"""Proves and measures sidfast on this machine's NVIDIA GPU in one go: `make gpu`.

Usage: python benchmarks/gpu.py [--only build,tests] [--seconds N] [--results FOLDER] [--rehearse]

Needs torch, triton, pytest, and for the CUDA library nvcc, cmake, ninja, pybind11 and setuptools;
no network, and nothing is installed: the libraries are built into the source tree, for this device
alone. The parts run one after the other, each in processes of its own under a time limit, so that
none takes another's results with it; after each, `benchmarks/results/<device>.json` and `.md` are
written with what there is, and once more when the run is broken off. With `--only` the other parts'
earlier results stay, if machine and sources are the same. Where the environment names a
folder OUT, both are copied there with the parts' logs.

`--rehearse` does everything but the build on a CPU, tiny, into build/gpu/rehearsal.json.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_report import page

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
WORK = ROOT / "build" / "gpu"
BUDGET = 480  # seconds for everything, unless told otherwise
GRACE = 5  # seconds between asking a process to end and ending it
TESTS = ("tests/gpu", "tests/ops", "tests/networks", "tests/steps", "tests/optim")
FAR = "tests/gpu/test_far.py"  # takes the memory of many
OUTCOME = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b")
NAMED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """One stage: processes side by side, and the seconds that they may take.

    Attributes:
        commands: name -> arguments of Python.
        result: JSON that the part writes as it goes; empty if it writes none.
        threads: of torch on the CPU, in each process; empty for its own choice.
    """

    name: str
    seconds: int
    commands: dict[str, list[str]]
    result: str = ""
    threads: str = ""


def parts(rehearse: bool) -> list[Part]:
    """What a run consists of, in order."""

    def script(name: str, seconds: int) -> Part:
        result = f"{name}.json"
        source = name if name == "baseline" else f"gpu_{name}"
        command = [str(HERE / f"{source}.py"), "--out", str(WORK / result)]
        return Part(name, seconds, {name: command + ["--rehearse"] * rehearse}, result)

    options = ["-vv", "-rfE", "--color=no", "-p", "no:cacheprovider", "--tb=short"]
    if rehearse:
        chosen = {"gpu": ["-m", "gpu", "tests/gpu"]}
    elif importlib.util.find_spec("xdist"):
        chosen = {"all": ["-m", "gpu", "-n", "12", f"--ignore={FAR}", *TESTS], "far": [FAR]}
    else:
        files = sorted(path for place in TESTS for path in (ROOT / place).glob("test_*.py"))
        chosen = {path.stem: ["-m", "gpu", str(path)] for path in files}
    tests = {name: ["-m", "pytest", *options, *which] for name, which in chosen.items()}
    # Not from the root, where older setuptools would stumble over pyproject.toml.
    build = [str(ROOT / "setup.py"), "build_ext", "-j", "2", f"--build-lib={ROOT}"]
    build += [f"--build-temp={ROOT / 'build' / 'native'}"]
    return [
        *([] if rehearse else [Part("build", 120, {"build": build})]),
        Part("tests", 200, tests, threads="2"),
        script("digits", 100),
        script("operators", 230),
        script("baseline", 120),
    ]


def environment(capability: str, rehearse: bool) -> dict[str, str]:
    """Of every process."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    added = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    if rehearse:
        added |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"}
    else:
        added |= {"SIDFAST_CUDA": "1", "SIDFAST_CUDA_ARCHS": capability}
        added |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # tests ask for deterministic algorithms
    return {**os.environ, **added}


def run(part: Part, seconds: float, env: dict[str, str]) -> dict[str, Any]:
    """Run a part's processes; what became of them, within `seconds`."""
    start = time.monotonic()
    logs = {name: WORK / f"{part.name}-{name}.log" for name in part.commands}
    if part.threads:
        env = {**env, "OMP_NUM_THREADS": part.threads}
    running = {}
    for name, arguments in part.commands.items():
        with open(logs[name], "w", encoding="utf-8") as log:
            running[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=WORK if part.name == "build" else ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    late = []
    try:
        for name, process in running.items():
            try:
                process.wait(max(start + seconds - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                late.append(name)
    finally:
        end(list(running.values()))
    codes = {name: process.returncode for name, process in running.items()}
    # pytest ends with 5 where it has nothing to do.
    fine = (0, 5) if part.name == "tests" else (0,)
    failed = [name for name, code in codes.items() if code not in fine and name not in late]
    texts = {name: log.read_text(encoding="utf-8", errors="replace") for name, log in logs.items()}
    record: dict[str, Any] = {
        "outcome": "out of time" if late else "failed" if failed else "passed",
        "seconds": round(time.monotonic() - start, 1),
        "unfinished": late,
        "failed": failed,
    }
    if part.name == "tests":
        record |= counted(texts)
    if late or failed:
        record["tail"] = {name: texts[name][-1500:] for name in [*late, *failed][:3]}
    return record


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End what still runs, with all that it started."""
    alive = [process for process in processes if process.poll() is None]
    for kind in (signal.SIGTERM, signal.SIGKILL):
        for process in alive:
            if process.poll() is None:
                os.killpg(process.pid, kind)
        deadline = time.monotonic() + GRACE
        for process in alive:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                continue


def counted(texts: dict[str, str]) -> dict[str, Any]:
    """Outcomes of tests from what pytest printed, also where it did not come to its end."""
    counts: dict[str, int] = {}
    names: set[str] = set()
    for text in texts.values():
        body = text.partition("short test summary")[0]
        for line in body.splitlines():
            if "::" in line and (found := OUTCOME.search(line)):
                counts[found[1].lower()] = counts.get(found[1].lower(), 0) + 1
        names |= set(NAMED.findall(text))
    return {"counts": counts, "failures": sorted(names)}


class Report:
    """The results of a run so far, and their files."""

    def __init__(
        self, folder: Path, name: str, machine: dict[str, Any], *, keep: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name = folder, name
        self._made: dict[str, Any] = {"machine": machine, "parts": {}}
        earlier = folder / f"{name}.json"
        if keep and earlier.is_file():
            made = json.loads(earlier.read_text(encoding="utf-8"))
            if made["machine"] == machine:
                self._made = made

    def add(self, part: Part, record: dict[str, Any]) -> None:
        """Take a part's record, and its results as far as it wrote them."""
        self._made["parts"][part.name] = record
        self._made.pop(part.name, None)
        path = WORK / part.result
        if part.result and path.is_file():
            try:
                self._made[part.name] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                record["failed"] = [*record["failed"], "its results are cut off"]
        self.write()

    def write(self) -> None:
        text = json.dumps(self._made, indent=1) + "\n"
        try:
            markdown = page(self._made)
        except Exception as error:  # results of an unforeseen form must not end the run
            markdown = f"This page could not be made of {self._name}.json: {error!r}\n"
        out = os.environ.get("OUT", "")
        for folder in (self._folder, Path(out)) if os.path.isdir(out) else (self._folder,):
            (folder / f"{self._name}.json").write_text(text, encoding="utf-8")
            (folder / f"{self._name}.md").write_text(markdown, encoding="utf-8")
        if os.path.isdir(out):
            with open(Path(out) / "gpu.log", "w", encoding="utf-8") as log:
                for each in sorted(WORK.glob("*.log")):
                    printed = each.read_text(encoding="utf-8", errors="replace")
                    log.write(f"=== {each.name}\n{printed[-500_000:]}\n")


def look(env: dict[str, str], rehearse: bool) -> dict[str, Any]:
    """Hardware and versions, from a process that may use torch."""
    command = [sys.executable, str(HERE / "gpu_machine.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(done.stderr or "torch does not import")
    machine: dict[str, Any] = json.loads(done.stdout)
    machine["sources"] = sources()
    if not machine["gpu"] and not rehearse:
        raise SystemExit("torch finds no CUDA device here; --rehearse runs on a CPU")
    return machine


def sources() -> str:
    """A digest of what is run, which tells results of one state of it from another's."""
    digest = hashlib.sha256()
    for place in ("sidfast", "csrc", "benchmarks", "tests"):
        for path in sorted((ROOT / place).rglob("*")):
            if path.suffix in (".py", ".cpp", ".cu", ".cuh", ".h"):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def slug(gpu: str) -> str:
    """A file name for a device: 'NVIDIA H100 80GB HBM3' is h100."""
    kept = []
    for word in re.split(r"[\s-]+", gpu.lower()):
        if re.match(r"\d+gb|hbm|pcie|sxm|nvl", word):
            break
        if word not in ("nvidia", "geforce", "tesla", "graphics"):
            kept.append(word)
    return "-".join(kept) or "gpu"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="parts by name, with commas between")
    parser.add_argument("--seconds", type=float, default=BUDGET, help="for everything (480)")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    rehearse, started = arguments.rehearse, time.monotonic()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    machine = look(environment("", rehearse), rehearse)
    name = "rehearsal" if rehearse else slug(machine["gpu"])
    folder = arguments.results or (WORK if rehearse else HERE / "results")
    only = set(filter(None, arguments.only.split(",")))
    if unknown := only - {part.name for part in parts(rehearse)}:
        parser.error(f"no part is named {', '.join(sorted(unknown))}")
    report = Report(folder, name, machine, keep=bool(only))
    env = environment(machine["capability"], rehearse)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = [part for part in parts(rehearse) if not only or part.name in only]
    outcomes = []
    try:
        for part in chosen:
            left = started + arguments.seconds - GRACE - time.monotonic()
            print(f"{part.name} ...", end=" ", flush=True)
            record = {"outcome": "interrupted", "seconds": 0.0, "unfinished": [], "failed": []}
            try:
                record = run(part, min(part.seconds, max(left, 1)), env)
            finally:
                report.add(part, record)
            print(record["outcome"], f"{record['seconds']:.0f} s", *summary(record), flush=True)
            outcomes.append(record["outcome"])
    except KeyboardInterrupt:
        print(f"interrupted; {folder / name}.md has what there is")
        return 130
    print(f"{folder / name}.md")
    return int(set(outcomes) != {"passed"})


def summary(record: dict[str, Any]) -> list[str]:
    """What to print of a part."""
    counts = ", ".join(f"{n} {what}" for what, n in record.get("counts", {}).items())
    tails = [f"\n--- {process}\n{text}" for process, text in record.get("tail", {}).items()]
    return [counts, *tails]


if __name__ == "__main__":
    sys.exit(main())
