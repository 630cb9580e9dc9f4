"""Feature networks: what turns images into the vectors that distances are measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from sidfast.base.errors import InputError

DIGITS_WEIGHTS = Path(__file__).parent / "weights" / "digits_classifier.safetensors"


class FeatureNet(Protocol):
    """A classifier opened at its last hidden layer."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) images in [-1, 1] -> (B, D) features."""

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D) features -> (B, K) class logits."""


class DigitsClassifier(nn.Module):
    """Convolutional classifier of 8x8 digits: (B, 1, 8, 8) in [-1, 1] -> (B, 10) logits.

    Its 64 penultimate activations play the part that Inception's pooled features play for
    photographs: distances there see strokes and shapes, not single pixels.
    """

    num_features = 64

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.hidden = nn.Linear(2 * width * 16, self.num_features)
        self.head = nn.Linear(self.num_features, 10)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.conv1(images))
        x = F.max_pool2d(F.silu(self.conv2(x)), 2)
        x = F.silu(self.conv3(x))
        # Normalised, so that distances have the same scale whichever training made the weights.
        return F.silu(F.layer_norm(self.hidden(x.flatten(1)), [self.num_features]))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits(self.features(images))


def digits_classifier(weights: str | Path = DIGITS_WEIGHTS) -> DigitsClassifier:
    """The shipped classifier, in eval mode and frozen, on the CPU.

    Trained by ``examples/train_digits_classifier.py`` on the 1,500 training digits; the command,
    seed and accuracy on the 297 held-out digits are in the ``.json`` beside the weights.

    Raises:
        InputError: the weights file is missing, unreadable or of another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    net = DigitsClassifier()
    try:
        net.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(
            expected="weights of DigitsClassifier",
            got=f"{weights} ({error.__class__.__name__})",
            fix="reinstall, or train them with examples/train_digits_classifier.py",
        ) from error
    return net.eval().requires_grad_(False)
