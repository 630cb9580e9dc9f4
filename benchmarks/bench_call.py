"""What a call costs before there is any work: operators on tiny tensors against torch.add.

The row's time is one call of `CALLS` in turn; its rival is torch.add on the same tensors, forward
alone like the row, with or without gradient. `x eager` under 1 says how much dearer the call is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Case
from torch import Tensor

from sidfast import ops

SHAPE = (2, 1, 4, 4)
CALLS = 200  # timed together: one is too short for the clock
SIGMA, INDEX = torch.rand(2) + 0.1, torch.arange(2)
KEY: dict[str, Any] = {"seed": 1, "index": INDEX}

OPERATORS: dict[str, Callable[..., Tensor]] = {
    "sid_loss": lambda x, y, z: ops.sid_loss(x, y, z),
    "dsm_loss": lambda x, y, z: ops.dsm_loss(x, y, SIGMA),
    "vsd_loss": lambda x, y, z: ops.vsd_loss(x, y, z),
    "sid_loss_raw": lambda x, y, z: ops.sid_loss_raw(x, y, z, SIGMA, SIGMA, SIGMA, **KEY),
    "add_noise": lambda x, y, z: ops.add_noise(x, SIGMA, **KEY),
    "dropout": lambda x, y, z: ops.dropout(x, 0.1, **KEY),
    "normal": lambda x, y, z: ops.normal(SHAPE, **KEY),
}


def repeated(call: Callable[..., Any], operands: list[Tensor]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(CALLS):
            call(*operands)

    return run


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "forward for a gradient"])
@pytest.mark.parametrize("op", OPERATORS)
def bench_call(race: Callable[..., None], threads: int, op: str, gradient: bool) -> None:
    if gradient and op == "normal":
        pytest.skip("no gradient")
    torch.manual_seed(0)
    operands = [torch.randn(SHAPE).requires_grad_(gradient) for _ in range(3)]
    call = OPERATORS[op]
    with torch.no_grad():
        error = (call(*operands) - call(*operands)).abs().max().item()
    mode = f"{CALLS} calls" + ", forward for a gradient" * gradient
    race(
        Case(op, mode, SHAPE, torch.float32, "any", threads, 0, 0, "auto"),
        repeated(call, operands),
        {"eager": repeated(lambda x, y, z: torch.add(x, y), operands)},
        error=error,
        budget=0.0,
    )
