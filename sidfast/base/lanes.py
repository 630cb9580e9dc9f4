"""Independent pieces of CPU work, side by side.

On small networks two threads that share each convolution wait for each other more than they work;
two threads with a piece of the batch each do not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def lane_count(device: torch.device, pieces: int) -> int:
    """How many of `pieces` run at once on `device`: torch's threads on a CPU, else one."""
    return min(torch.get_num_threads(), pieces) if device.type == "cpu" else 1


def side_by_side(
    function: Callable[[Item], Result], items: Sequence[Item], device: torch.device
) -> list[Result]:
    """[function(item) for item in items], `lane_count` of them at a time.

    Each lane is a thread with its share of torch's threads and the caller's gradient mode.
    """
    lanes = lane_count(device, len(items))
    if lanes < 2:
        return [function(item) for item in items]
    threads = torch.get_num_threads()
    gradients = torch.is_grad_enabled()

    def work(item: Item) -> Result:
        with torch.set_grad_enabled(gradients):
            return function(item)

    pool = _pool(lanes, threads // lanes)
    futures = [pool.submit(work, item) for item in items]
    try:
        wait(futures)
        return [future.result() for future in futures]
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(lanes: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        lanes,
        thread_name_prefix="sidfast-lane",
        initializer=torch.set_num_threads,
        initargs=(threads,),
    )


# Threads do not survive a fork: the child makes its own.
os.register_at_fork(after_in_child=_pool.cache_clear)
