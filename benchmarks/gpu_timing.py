"""How GPU benchmarks take times: by events on the device, rivals in turn, caches cleared."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], Any]

CLEARED_BYTES = 2 * 2**30  # zeroed before each timed call: more than any cache holds
# Clock cycles, about 3 ms, for the host to get ahead: what is timed is the device's work.
HEAD_START = 5_000_000
ROUNDS = {"cuda": (10, 100), "cpu": (2, 2)}  # at least, at most


def synchronize(device: torch.device) -> None:
    """Wait for all work on `device`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Times between marks on a device's current stream; on a CPU the host's clock."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def mark(self) -> Any:
        """A moment, to be handed to `between` once the device has passed it."""
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        """Seconds."""
        return start.elapsed_time(end) / 1e3 if self._cuda else end - start


def race(calls: dict[str, Call], device: torch.device, seconds: float) -> dict[str, list[float]]:
    """Seconds of each timed call; the calls take turns, `seconds` for all of them together."""
    watch = Stopwatch(device)
    size = CLEARED_BYTES if device.type == "cuda" else 1
    cleared = torch.empty(size, dtype=torch.uint8, device=device)

    def one_round() -> dict[str, float]:
        marks = {}
        for name, call in calls.items():
            cleared.zero_()
            if device.type == "cuda":
                torch.cuda._sleep(HEAD_START)
            start = watch.mark()
            call()
            marks[name] = start, watch.mark()
        synchronize(device)
        return {name: watch.between(*pair) for name, pair in marks.items()}

    one_round()
    one_round()
    start = time.perf_counter()
    one_round()
    once = time.perf_counter() - start
    least, most = ROUNDS[device.type]
    rounds = int(min(max(seconds / once, least), most))
    made = [one_round() for _ in range(rounds)]
    return {name: [times[name] for times in made] for name in calls}


def summary(times: list[float]) -> dict[str, float]:
    """Median and interquartile range, in seconds."""
    low, median, high = statistics.quantiles(times, n=4)
    return {"median": median, "iqr": high - low}


def launches(call: Call) -> int:
    """Kernels, copies and fills that a call makes the device do."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiler.events())


def waits(call: Call) -> int:
    """How often a call makes the host wait for the device, as far as torch knows."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(each.message) for each in caught)
