"""How good is a set of images? Every number that the report shows about one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sidfast.base.errors import InputError
from sidfast.diffusion.sampling import device_of
from sidfast.evaluate.checks import check_images, eight_bit
from sidfast.evaluate.features import FeatureNet
from sidfast.evaluate.frechet import frechet_distance, gaussian_stats
from sidfast.evaluate.kid import kernel_distance
from sidfast.evaluate.neighbours import Neighbours, nearest_neighbours
from sidfast.evaluate.precision_recall import NEIGHBOURS, precision_recall


@dataclass(frozen=True)
class Quality:
    """One set of images measured against the references (training) and the held-out images.

    Attributes:
        images: how many were measured.
        frechet_pixels, frechet_features: Frechet distance to the references.
        kid, kid_std: unbiased kernel distance of features to the held-out images, mean and
            standard deviation over subsets.
        precision, recall: against the references, for sets as large as the held-out one.
        neighbours: nearest real images in pixels: memorisation and variety.
        class_shares: share of the images that the feature network takes for each class.
        network_calls: per image; None for real images.
        images_per_second: of sampling on the machine at hand; None for real images.
    """

    images: int
    frechet_pixels: float
    frechet_features: float
    kid: float
    kid_std: float
    precision: float
    recall: float
    neighbours: Neighbours
    class_shares: tuple[float, ...]
    network_calls: int | None = None
    images_per_second: float | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Quality:
        """Read back what ``dataclasses.asdict`` and JSON made of a Quality."""
        near = record["neighbours"]
        return cls(
            **{
                **record,
                "neighbours": Neighbours(**{**near, "chance": tuple(near["chance"])}),
                "class_shares": tuple(record["class_shares"]),
            }
        )


class Yardstick:
    """References, held-out images and their features, prepared once to measure many sets.

    Args:
        references: (N, C, H, W) in [-1, 1], the images that the networks were trained on.
        heldout: (M, C, H, W), of the same origin, that nothing was trained on.
        feature_net: see `FeatureNet`.
        seed: picks the subsets that KID, precision and recall average over.

    Raises:
        InputError: images of wrong shapes, too few, non-finite, or that the network cannot take.
    """

    def __init__(
        self, references: Tensor, heldout: Tensor, feature_net: FeatureNet, *, seed: int = 0
    ) -> None:
        fewest = 2 * (NEIGHBOURS + 1)
        check_images(references, "references", at_least=fewest)
        check_images(heldout, "held-out images", at_least=fewest, like=references)
        self.net = feature_net
        self.seed = seed
        self.references = eight_bit(references).cpu()
        self.heldout = eight_bit(heldout).cpu()
        self.reference_features, reference_classes = self._see(self.references)
        self.heldout_features, _ = self._see(self.heldout)
        self.class_shares = _shares(reference_classes)
        self._pixels = gaussian_stats(self.references.flatten(1))
        self._features = gaussian_stats(self.reference_features)
        self._size = min(len(references), len(heldout))

    def measure(self, samples: Tensor) -> Quality:
        """Measure generated images, clamped and rounded to 8 bits.

        Args:
            samples: (n, C, H, W), at least as many as there are held-out images.

        Raises:
            InputError: wrong shape, too few, or non-finite values.
        """
        check_images(samples, "samples", at_least=len(self.heldout), like=self.references)
        samples = eight_bit(samples).cpu()
        features, classes = self._see(samples)
        return self._quality(
            samples,
            features,
            classes,
            kid=kernel_distance(features, self.heldout_features, seed=self.seed),
            neighbours=nearest_neighbours(samples, self.references, self.heldout),
        )

    def real_split(self) -> Quality:
        """Measure the held-out images: what a perfect generator of as many images would score.

        KID compares the references with them; their neighbours are sought among all others.
        """
        features, classes = self._see(self.heldout)
        return self._quality(
            self.heldout,
            features,
            classes,
            kid=kernel_distance(self.reference_features, features, seed=self.seed),
            neighbours=nearest_neighbours(
                self.heldout, self.references, self.heldout, samples_are_heldout=True
            ),
        )

    def _quality(
        self,
        images: Tensor,
        features: Tensor,
        classes: Tensor,
        *,
        kid: tuple[float, float],
        neighbours: Neighbours,
    ) -> Quality:
        precision, recall = precision_recall(
            features, self.reference_features, size=self._size, seed=self.seed
        )
        return Quality(
            images=len(images),
            frechet_pixels=frechet_distance(gaussian_stats(images.flatten(1)), self._pixels),
            frechet_features=frechet_distance(gaussian_stats(features), self._features),
            kid=kid[0],
            kid_std=kid[1],
            precision=precision,
            recall=recall,
            neighbours=neighbours,
            class_shares=_shares(classes),
        )

    @torch.no_grad()
    def _see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) and one-hot predicted classes (N, K) of images, on the CPU."""
        device = device_of(self.net)
        parts = []
        for chunk in images.split(1000):
            try:
                features = self.net.features(chunk.to(device))
            except RuntimeError as error:
                raise InputError(
                    expected="images that the feature network can take",
                    got=f"shape {tuple(images.shape)} ({error})",
                    fix="pass a feature_net made for images of this size",
                ) from error
            logits = self.net.logits(features)
            classes = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1])
            parts.append((features.cpu(), classes.cpu()))
        features, classes = (torch.cat(part) for part in zip(*parts, strict=True))
        return features, classes


def _shares(classes: Tensor) -> tuple[float, ...]:
    return tuple(classes.double().mean(0).tolist())
