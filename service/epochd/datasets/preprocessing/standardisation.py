"""Mean 0 and deviation 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from epochd.datasets.preprocessing.rows import Array, Rows, chunks

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

FLOAT32_RESOLUTION = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Standardisation:
    """``mean`` and ``scale``, float32, broadcast against one sample: per value, or per channel (channels, 1, 1)."""

    mean: Float32Array
    scale: Float32Array

    @classmethod
    def fit(cls, part: Array, rows: Rows, *, per_channel: bool = False) -> Self:
        """Mean and population standard deviation of ``rows``, in float64, leaving out NaN.

        What is constant, or has no value at all, gets the scale 1. The values are read twice, chunk by chunk.
        """
        axes = (0, *range(2, part.ndim)) if per_channel else (0,)
        total, counts = _sums(part, rows, axes)
        mean: Float64Array = total / np.maximum(counts, 1)
        squares = _squares(part, rows, axes, mean)
        deviation: Float64Array = np.sqrt(squares / np.maximum(counts, 1))
        # What varies by less than float32 can tell apart is constant: dividing by it would blow up rounding errors.
        scale = np.where(deviation <= FLOAT32_RESOLUTION * np.abs(mean), 1.0, deviation)
        return cls(mean[0].astype(np.float32), scale[0].astype(np.float32))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave."""
        return cls(np.array(values["mean"], np.float32), np.array(values["scale"], np.float32))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, exact."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    def apply(self, values: Array, out: Float32Array) -> None:
        """``(values - mean) / scale`` in float32."""
        np.copyto(out, values)  # of bytes, faster than to convert them while subtracting
        np.subtract(out, self.mean, out=out)
        np.divide(out, self.scale, out=out)


def _sums(part: Array, rows: Rows, axes: tuple[int, ...]) -> tuple[Float64Array, Float64Array]:
    """The sum, and the number of values in it, keeping all axes."""
    total: Any = 0
    counts: Any = 0
    for _, chunk in chunks(part, rows):
        missing = _missing(chunk)
        known = chunk if missing is None else np.where(missing, np.float32(0), chunk)
        total = total + known.sum(axis=axes, dtype=np.float64, keepdims=True)
        present = np.broadcast_to(True, chunk.shape) if missing is None else ~missing
        counts = counts + present.sum(axis=axes, keepdims=True)
    return total, counts


def _squares(part: Array, rows: Rows, axes: tuple[int, ...], mean: Float64Array) -> Float64Array:
    total: Any = 0
    for _, chunk in chunks(part, rows):
        centred = chunk - mean
        missing = _missing(chunk)
        if missing is not None:
            centred[missing] = 0.0
        total = total + np.square(centred, out=centred).sum(axis=axes, keepdims=True)
    values: Float64Array = total
    return values


def _missing(chunk: Array) -> npt.NDArray[np.bool_] | None:
    """Where NaN is; None when it is nowhere."""
    if chunk.dtype.kind != "f":
        return None
    missing: npt.NDArray[np.bool_] = np.isnan(chunk)
    return missing if missing.any() else None
