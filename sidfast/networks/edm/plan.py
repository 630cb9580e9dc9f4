"""The shape of a U-Net: its layers in order, with names and widths, before any is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """One layer. `kind` is 'conv' (the stem), 'down', 'up', 'in' (middle) or 'block'.

    `level` counts from 0 at full resolution; `number` counts the blocks of a level and kind.
    """

    kind: str
    level: int
    res: int
    number: int
    in_channels: int
    out_channels: int

    @property
    def name(self) -> str:
        """The layer's name in state dicts, such as 16x16_block0 or 8x8_down."""
        suffix = self.number if self.kind in ("in", "block") else ""
        return f"{self.res}x{self.res}_{self.kind}{suffix}"


def plan_encoder(
    img_resolution: int, in_channels: int, stem: int, widths: Sequence[int], num_blocks: int
) -> list[Step]:
    """A stem of `stem` channels or a halving opens each level; `num_blocks` blocks follow."""
    steps: list[Step] = []
    channels = stem
    for level, width in enumerate(widths):
        res = img_resolution >> level
        if level == 0:
            steps.append(Step("conv", level, res, 0, in_channels, channels))
        else:
            steps.append(Step("down", level, res, 0, channels, channels))
        for number in range(num_blocks):
            steps.append(Step("block", level, res, number, channels, width))
            channels = width
    return steps


def plan_decoder(encoder: Sequence[Step], widths: Sequence[int], num_blocks: int) -> list[Step]:
    """Two middle layers or a doubling open each level, deepest first; `num_blocks` + 1 blocks
    follow, each of which takes one more encoder output, last first, beside the layer before it.
    """
    skips = [step.out_channels for step in encoder]
    channels = skips[-1]
    steps: list[Step] = []
    for level, width in reversed(list(enumerate(widths))):
        res = encoder[0].res >> level
        if level == len(widths) - 1:
            steps += [Step("in", level, res, index, channels, channels) for index in range(2)]
        else:
            steps.append(Step("up", level, res, 0, channels, channels))
        for number in range(num_blocks + 1):
            steps.append(Step("block", level, res, number, channels + skips.pop(), width))
            channels = width
    return steps
