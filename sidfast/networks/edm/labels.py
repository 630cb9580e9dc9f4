"""What both U-Nets share besides their layers: class-label embedding and dropout numbering."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sidfast.networks.edm.layers import UNetBlock
from sidfast.ops.random import Key, uniform

if TYPE_CHECKING:
    from sidfast.networks.edm.dhariwal import DhariwalUNet
    from sidfast.networks.edm.song import SongUNet


def number_blocks(unet: SongUNet | DhariwalUNet) -> int:
    """Give every residual block its running number, in construction order; return their count."""
    blocks = [layer for layer in unet.modules() if isinstance(layer, UNetBlock)]
    for number, block in enumerate(blocks):
        block.layer = number
    return len(blocks)


def label_embedding(
    unet: SongUNet | DhariwalUNet,
    class_labels: Tensor | None,
    like: Tensor,
    key: Key | None,
    gain: float,
) -> Tensor:
    """map_label(gain * class_labels), (B or 1, width), with `label_dropout` while training.

    No labels are zero labels. The keyed draw uses the stream after the last block's.
    """
    assert unet.map_label is not None
    if class_labels is None:
        return unet.map_label(like.new_zeros(1, unet.label_dim))
    labels = class_labels.to(like.dtype)
    if unet.training and unet.label_dropout:
        shape = (labels.shape[0], 1)
        if key is None:
            u = torch.rand(shape, device=labels.device)
        else:
            stream = key.stream + unet.num_layers
            u = uniform(shape, seed=key.seed, index=key.index, stream=stream)
        labels = labels * (u >= unet.label_dropout).to(labels.dtype)
    return unet.map_label(labels * gain)
