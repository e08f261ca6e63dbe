"""Which samples, and reading them several at a time, so that memory stays bounded whatever the size of the data."""

from collections.abc import Iterator
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from epochd.errors import DataError

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Rows = Indices | slice
"""Indexes of samples, or a range of them without a step."""

ALL: Final = slice(None)
CHUNK_VALUES: Final = 2**20
"""So many values are read at a time. Sums, and so the bits of what is fitted, depend on it."""

VALUES_IN_CACHE: Final = 2**18
"""So many values are preprocessed at a time: they pass through several steps and stay in the cache meanwhile."""


def count(rows: Rows, samples: int) -> int:
    """How many samples of ``samples`` are meant."""
    return len(range(*rows.indices(samples))) if isinstance(rows, slice) else len(rows)


def part_of(rows: Rows, start: int, stop: int) -> Rows:
    """Those that are at ``start`` … ``stop - 1`` among ``rows``."""
    if isinstance(rows, slice):
        first = rows.start or 0
        return slice(first + start, first + stop if rows.stop is None else min(first + stop, rows.stop))
    return rows[start:stop]


def row_at(rows: Rows, place: int) -> int:
    """The index, in the data set, of what is at ``place`` among ``rows``."""
    return (rows.start or 0) + place if isinstance(rows, slice) else int(rows[place])


def take(part: Array, rows: Rows) -> Array:
    """The rows of an array: a view for a range, a copy otherwise."""
    return part[rows] if isinstance(rows, slice) else np.take(part, rows, axis=0)


def spans(
    rows: Rows, samples: int, values_per_row: int, values: int = CHUNK_VALUES
) -> Iterator[tuple[int, Rows]]:
    """Where each chunk begins among ``rows``, and the chunk's own rows: about so many values each."""
    total, step = count(rows, samples), max(1, values // max(1, values_per_row))
    for start in range(0, total, step):
        yield start, part_of(rows, start, min(start + step, total))


def chunks(part: Array, rows: Rows) -> Iterator[tuple[int, Array]]:
    """The same with the chunk's values."""
    for start, span in spans(rows, len(part), prod(part.shape[1:])):
        yield start, take(part, span)


def require_finite(values: Array, rows: Rows, what: str) -> None:
    """Raise ``DataError`` that names the first row with NaN or infinity."""
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values)
    if finite.all():
        return
    place = int(np.argmin(finite.reshape(len(values), -1).all(axis=1)))
    raise DataError(
        f"The {what} hold NaN or infinity, first in row {row_at(rows, place)}: remove such rows or fill them with a "
        "number."
    )
