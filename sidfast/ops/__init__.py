"""Operators, one room per kernel family; each room has several back ends behind one door."""

from __future__ import annotations

from collections.abc import Sequence

from sidfast.ops import adam_ema, group_norm, random, score_losses
from sidfast.ops.group_norm import group_norm_silu
from sidfast.ops.random import Key, add_noise, dropout, integers, normal, uniform
from sidfast.ops.score_losses import dsm_loss, dsm_loss_raw, sid_loss, sid_loss_raw, vsd_loss

__all__ = [
    "Key",
    "add_noise",
    "backends_report",
    "dropout",
    "dsm_loss",
    "dsm_loss_raw",
    "group_norm_silu",
    "integers",
    "normal",
    "sid_loss",
    "sid_loss_raw",
    "uniform",
    "vsd_loss",
]

_ROOMS = (random, score_losses, group_norm, adam_ema)


def backends_report(
    devices: Sequence[str] = ("cpu",),
) -> dict[tuple[str, str], dict[str, list[str]]]:
    """Which back ends would serve an ordinary float32 call on each of `devices`.

    Nothing is allocated on a device.

    Returns:
        (device, operator) -> back end, in order of preference -> reasons why it cannot serve.
    """
    from torch._subclasses import FakeTensorMode

    report = {}
    for device in devices:
        for room in _ROOMS:
            with FakeTensorMode():
                calls = room.contract.plain_calls(device)
            for op, args in calls.items():
                rows = {row.name: row.reasons(op, *args) for row in room.BACKENDS}
                report[device, op] = rows
    return report
