"""Which batch size to take, from what was measured. No torch: the API reads it, too."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

SAME_SPEED = 0.95
"""A batch size this close to the most samples per second counts as as fast: measured speed varies by a few percent."""


@dataclass(frozen=True, slots=True)
class BatchSizeMeasured:
    """What real iterations at one batch size took.

    ``peak_memory_bytes`` is the most memory held: on the CPU the resident memory of the whole process, on CUDA what
    torch's allocator had given out; None where it is not known. ``samples_per_second`` is the median over blocks of
    the ``iterations`` that were timed, and ``epoch_seconds`` the time of an epoch of full mini-batches at that speed,
    without validation. ``reason`` says why a size does not fit.
    """

    batch_size: int
    fits: bool
    peak_memory_bytes: int | None = None
    samples_per_second: float | None = None
    epoch_seconds: float | None = None
    iterations: int = 0
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make it from what ``as_dict`` gave."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """The simple gradient noise scale tr(Sigma) / |G|^2, in samples: the critical batch size to first order.

    See ``noise_scale.estimate`` for the formulas and their source. ``low`` and ``high`` bound 95 %. ``value`` is None
    when the gradient could not be told from its noise, ``high`` when it might be arbitrarily large.
    """

    value: float | None
    low: float | None
    high: float | None
    gradient_norm_squared: float
    gradient_variance: float
    batch_size_small: int
    batch_size_big: int
    measurements: int

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make it from what ``as_dict`` gave."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class BatchSizeChoice:
    """The largest batch size that ``fits``, the ``fastest`` and the ``recommended``; None where no size fits.

    ``reasons`` has a sentence for each of the three, by its name.
    """

    fits: int | None
    fastest: int | None
    recommended: int | None
    reasons: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)


def candidates(train_samples: int, smallest: int = 1) -> list[int]:
    """The powers of two from ``smallest`` up to ``train_samples``, ascending."""
    return [2**power for power in range(train_samples.bit_length()) if 2**power >= smallest]


def choose(
    measured: Sequence[BatchSizeMeasured], noise: NoiseScale | None, train_samples: int
) -> BatchSizeChoice:
    """Choose among what was measured.

    ``fastest`` is the smallest size with at least SAME_SPEED of the most samples per second. ``recommended`` is the
    noise scale rounded to the nearest power of two (of its logarithm), within the sizes that fit: at that size a
    training takes about twice the iterations of, and twice the samples at, the respective minimum (McCandlish et al.
    2018, section 2.3). Without a noise scale it is ``fastest``.
    """
    fitting = sorted((one for one in measured if one.fits), key=lambda one: one.batch_size)
    if not fitting:
        said = _why_not(measured) or "None was measured."
        return BatchSizeChoice(None, None, None, dict.fromkeys(("fits", "fastest", "recommended"), said))
    largest = fitting[-1].batch_size
    fastest, why_fastest = _fastest(fitting)
    recommended, why_recommended = _recommended([one.batch_size for one in fitting], noise, fastest)
    reasons = {
        "fits": _why_largest(measured, largest, train_samples),
        "fastest": why_fastest,
        "recommended": why_recommended,
    }
    return BatchSizeChoice(largest, fastest, recommended, reasons)


def _why_not(measured: Sequence[BatchSizeMeasured]) -> str:
    return next((f"{one.batch_size} does not fit: {one.reason}" for one in measured if not one.fits), "")


def _why_largest(measured: Sequence[BatchSizeMeasured], largest: int, train_samples: int) -> str:
    above = _why_not([one for one in measured if one.batch_size > largest])
    if above:
        return f"{largest} is the largest power of two that fits. {above}"
    if largest * 2 > train_samples:
        return f"{largest} fits, and is the largest power of two within the {train_samples} training samples."
    return f"{largest} fits; larger ones were not tried: the time for measuring was up."


def _fastest(fitting: Sequence[BatchSizeMeasured]) -> tuple[int, str]:
    speeds = [(one.batch_size, one.samples_per_second) for one in fitting]
    timed = [(size, speed) for size, speed in speeds if speed is not None]
    if not timed:
        return fitting[0].batch_size, "No batch size could be timed; this is the smallest one that fits."
    most = max(speed for _, speed in timed)
    size, speed = next(one for one in timed if one[1] >= SAME_SPEED * most)
    return size, (
        f"{size} trains on {speed:.0f} samples per second: the smallest batch size within "
        f"{1 - SAME_SPEED:.0%} of the most, {most:.0f}."
    )


def _recommended(sizes: Sequence[int], noise: NoiseScale | None, fastest: int) -> tuple[int, str]:
    if noise is None:
        return fastest, "The gradient noise scale was not measured; this is the fastest batch size that fits."
    if noise.value is None:
        return fastest, (
            "The gradient could not be told from its noise, so the noise scale says nothing; "
            "this is the fastest batch size that fits."
        )
    critical = max(noise.value, 1.0)
    size = min(sizes, key=lambda one: abs(math.log2(one / critical)))
    nearest = 2 ** round(math.log2(critical))
    said = f"The gradient noise scale is {noise.value:.1f} samples{_interval(noise)}"
    if nearest == size:
        return size, (
            f"{said}: {size} is the power of two nearest to it. Larger batches save few iterations, "
            "smaller ones hardly any samples."
        )
    return size, (
        f"{said}: {nearest} is the power of two nearest to it; {size} is the nearest that was found to fit."
    )


def _interval(noise: NoiseScale) -> str:
    if noise.low is None:
        return ""
    high = "any size" if noise.high is None else f"{noise.high:.1f}"
    return f" (95 %: {noise.low:.1f} to {high})"
