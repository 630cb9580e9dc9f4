"""The decay of the generator's moving average."""

from __future__ import annotations


def ema_beta(batch: int, n_img: int, *, halflife: float, rampup: float | None = 0.05) -> float:
    """EMA coefficient of one iteration: 0.5^(batch / halflife), with EDM's ramp-up.

    Early in a run the half-life is held at `rampup` times the images seen so far, so that the
    average forgets its start; before the first image it is 0, and the average is a plain copy.

    Args:
        batch: images of this iteration.
        n_img: images seen before this iteration.
        halflife: in images.
        rampup: share of n_img that bounds the half-life; None switches the ramp-up off.

    Source: EDM (arXiv 2206.00364) training, kept by SiD (arXiv 2404.04057).
    """
    bound = halflife if rampup is None else min(halflife, rampup * n_img)
    return float(0.5 ** (batch / max(bound, 1e-8)))
