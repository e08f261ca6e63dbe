"""The gradient noise scale, from the squared norms of gradients over small and over big batches. No torch."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from epochd.training.batch_size_choice import NoiseScale

CONFIDENCE = 1.96
"""Standard errors on either side that hold 95 % of a normal distribution."""
FEWEST = 3
"""Measurements below which a jackknife says nothing."""

Numbers = npt.NDArray[np.float64]


def estimate(
    small_norms: Sequence[float], big_norms: Sequence[float], batch_size_small: int, batch_size_big: int
) -> NoiseScale:
    """Estimate tr(Sigma) / |G|^2; entry i of both sequences is one measurement, of squared gradient norms.

    By McCandlish, Kaplan, Amodei et al. 2018, "An Empirical Model of Large-Batch Training" (arXiv:1812.06162), appendix
    A.1: with b and B samples in the small and the big batch, E|G_b|^2 = |G|^2 + tr(Sigma) / b, hence unbiased are

        |G|^2     = (B |G_B|^2 - b |G_b|^2) / (B - b)
        tr(Sigma) = (|G_b|^2 - |G_B|^2) / (1/b - 1/B)

    Their ratio would be biased, so each is averaged over all measurements first, as there. What bias a ratio of
    averages keeps, and its error, come from the delete-one jackknife (Efron and Stein 1981) of 1 / scale =
    |G|^2 / tr(Sigma): |G|^2 is what is uncertain, and as the numerator it may come near 0 without harm. Where the
    interval of that reaches 0, ``high`` is None; where its middle is not above 0, ``value`` is None.

    Raises ValueError for fewer than 3 measurements, or sizes that are not in order.
    """
    if not 0 < batch_size_small < batch_size_big or not len(small_norms) == len(big_norms) >= FEWEST:
        raise ValueError(f"At least {FEWEST} pairs are needed, of a small and of a bigger batch.")
    small, big = np.asarray(small_norms, dtype=np.float64), np.asarray(big_norms, dtype=np.float64)
    squared = (batch_size_big * big - batch_size_small * small) / (batch_size_big - batch_size_small)
    variance = (small - big) / (1 / batch_size_small - 1 / batch_size_big)
    value, low, high = _scale(squared, variance)
    return NoiseScale(
        value=value,
        low=low,
        high=high,
        gradient_norm_squared=float(squared.mean()),
        gradient_variance=float(variance.mean()),
        batch_size_small=batch_size_small,
        batch_size_big=batch_size_big,
        measurements=len(small),
    )


def _scale(squared: Numbers, variance: Numbers) -> tuple[float | None, float | None, float | None]:
    """The scale, and what bounds it."""
    count = len(squared)
    left_out = variance.sum() - variance
    if not np.isfinite(squared).all() or not (left_out > 0).all() or variance.sum() <= 0:
        return None, None, None
    whole = squared.sum() / variance.sum()
    parts = (squared.sum() - squared) / left_out
    middle = count * whole - (count - 1) * parts.mean()
    error = math.sqrt((count - 1) * float(((parts - parts.mean()) ** 2).mean()))
    bounds = (middle, middle + CONFIDENCE * error, middle - CONFIDENCE * error)
    value, low, high = (1 / float(one) if one > 0 else None for one in bounds)
    return value, low, high
