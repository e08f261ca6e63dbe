"""A date as numbers: the time itself, and where in the year, the week and the day it lies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from epochd.datasets.info import Column
from epochd.datasets.preprocessing.rows import Array, Rows, chunks
from epochd.datasets.raw import MISSING_DATE

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

DAY: Final = 86_400_000_000
MINUTE: Final = 60_000_000
YEAR: Final = 31_556_952_000_000
"""365.2425 days, the mean year of the Gregorian calendar, in microseconds."""
CYCLES: Final = ((YEAR, DAY), (7 * DAY, DAY))
"""Period and step in microseconds: the phase is known to a step."""
CYCLE_OF_TIME: Final = (DAY, MINUTE)


@dataclass(frozen=True, slots=True)
class DateColumn:
    """``mean``, since 1970, and ``scale`` in microseconds; ``indicator`` tells of a column for missing ones."""

    name: str
    mean: int
    scale: float
    indicator: bool
    has_time: bool

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave."""
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, exact."""
        return {name: getattr(self, name) for name in ("name", "mean", "scale", "indicator", "has_time")}

    @property
    def cycles(self) -> tuple[tuple[int, int], ...]:
        """Those that the date has a phase in."""
        return (*CYCLES, CYCLE_OF_TIME) if self.has_time else CYCLES

    @property
    def width(self) -> int:
        """The columns that ``encode`` writes."""
        return 1 + 2 * len(self.cycles)

    def encode(self, dates: Array, missing: npt.NDArray[np.bool_], out: Float32Array) -> None:
        """Write (n, width): the standardised time, then sine and cosine of each cycle; 0 where the date is missing."""
        filled = np.where(missing, self.mean, dates)
        out[:, 0] = (filled - self.mean) / self.scale
        for place, (period, step) in enumerate(self.cycles):
            out[:, 1 + 2 * place : 3 + 2 * place] = phases(period, step)[np.mod(filled, period) // step]
        if missing.any():
            out[missing] = 0.0


def missing_dates(dates: Array) -> npt.NDArray[np.bool_]:
    """Where there is no date."""
    missing: npt.NDArray[np.bool_] = dates == MISSING_DATE
    return missing


@cache
def phases(period: int, step: int) -> Float32Array:
    """Sine and cosine (steps, 2) of each step of a period.

    A table, because libraries differ in the last bit of a sine and this must not depend on who applies it.
    """
    angles = [2 * pi * index * step / period for index in range(-(-period // step))]
    return np.array([(sin(angle), cos(angle)) for angle in angles], dtype=np.float32)


def fit_dates(columns: Sequence[Column], dates: Array, rows: Rows) -> tuple[DateColumn, ...]:
    """Measure all dates of a table, int64 (samples, columns), leaving out missing ones; they are read twice."""
    means = [round(average) for average in _averages(dates, rows, [0] * len(columns), _same)]
    variances = _averages(dates, rows, means, np.square)
    return tuple(
        DateColumn(column.name, mean, variance**0.5 or 1.0, column.missing > 0, column.has_time)
        for column, mean, variance in zip(columns, means, variances, strict=True)
    )


def _averages(
    dates: Array, rows: Rows, origins: Sequence[int], measure: Callable[[Float64Array], Float64Array]
) -> list[float]:
    """Of what ``measure`` makes of each column's dates since its origin; 0 when there is none."""
    totals, counts = [0.0] * len(origins), [0] * len(origins)
    for _, chunk in chunks(dates, rows):
        for place, column in enumerate(chunk.T):
            known = column[~missing_dates(column)]
            totals[place] += float(measure((known - origins[place]).astype(np.float64)).sum())
            counts[place] += len(known)
    return [total / max(count, 1) for total, count in zip(totals, counts, strict=True)]


def _same(values: Float64Array) -> Float64Array:
    return values
