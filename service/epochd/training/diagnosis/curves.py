"""What is read off curves of losses: smoothed values, noise, falls and trends. No torch.

A group of curves is float64 (curves, points).
"""

import math
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from epochd.training.loss_curve import MAX_POINTS

Float64Array = npt.NDArray[np.float64]

MAX_SMOOTHING: Final = 15
MAX_SPIKE: Final = 5
"""Points over which the running median is taken: spikes of up to half of them disappear."""
MAD_TO_DEVIATION: Final = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


def smoothing_width(points: int) -> int:
    """Over how many points a curve of so many is smoothed."""
    return min(max(3, points // 8 | 1), MAX_SMOOTHING)


def smoothed(raw: Float64Array, width: int) -> Float64Array:
    """Smooth curves: a running median against spikes, then a running mean."""
    points = raw.shape[-1]
    spikes = min(width, MAX_SPIKE)
    medians = np.partition(raw.take(_windows(points, spikes), axis=1), spikes // 2, axis=-1)[..., spikes // 2]
    smooth: Float64Array = medians.take(_windows(points, width), axis=1).mean(axis=-1)
    return smooth


def noise(raw: Float64Array) -> list[float]:
    """The standard deviation of each curve's noise, from second differences: a trend adds nothing."""
    second = raw[:, :-2] - 2 * raw[:, 1:-1] + raw[:, 2:]
    deviations: list[float] = (MAD_TO_DEVIATION * np.median(np.abs(second), axis=-1) / math.sqrt(6)).tolist()
    return deviations


def falls(tails: Float64Array) -> list[float]:
    """How far each curve falls along its tail, by the median of all slopes (Theil, 1950; Sen, 1968)."""
    first, second = _pairs(tails.shape[-1])
    slopes = (tails[:, first] - tails[:, second]) / (second - first)
    fallen: list[float] = (np.median(slopes, axis=-1) * (tails.shape[-1] - 1)).tolist()
    return fallen


def trends(epochs: Float64Array, tails: Float64Array) -> tuple[list[float], list[float]]:
    """The slope of each curve per epoch, and its standard error, by least squares over at least three points.

    The error is that of the textbook, sqrt(RSS / (n - 2) / Sxx) (Draper and Smith, Applied Regression Analysis, 1998,
    section 1.4), which takes the noise of the points for independent.
    """
    apart = epochs - epochs.mean()
    spread = float(apart @ apart)
    about_mean = tails - tails.mean(axis=1, keepdims=True)
    slopes = about_mean @ apart / spread
    left = about_mean - slopes[:, None] * apart
    errors = np.sqrt((left * left).sum(axis=1) / (len(epochs) - 2) / spread)
    return slopes.tolist(), errors.tolist()


@lru_cache(maxsize=MAX_POINTS)
def _pairs(points: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    first, second = np.triu_indices(points, k=1)
    return first, second


@lru_cache(maxsize=MAX_POINTS)
def _windows(points: int, width: int) -> npt.NDArray[np.int64]:
    """The indices (points, width) around each point; near the ends those of the last full window."""
    starts = np.clip(np.arange(points) - width // 2, 0, points - width)
    return starts[:, None] + np.arange(width)
