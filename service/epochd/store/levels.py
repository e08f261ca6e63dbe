"""Reduced levels of a series: what a plot of millions of iterations is drawn from, kept as they are recorded.

Level l = 0, 1, 2, … divides the iterations into aligned buckets of 256·4^l: bucket k of size s holds iterations
k·s+1 … (k+1)·s. A row holds 16 consecutive buckets, and is made once, when the attempt has recorded all of them: a
span that it recorded in part has none. Of a bucket it keeps

- for each column the first iteration of the smallest and of the largest finite value, with all that was recorded of
  them; a bucket without any finite value keeps its first iteration. Extremes of extremes are exact, so that a level
  is made of the one below;
- for each column the sum and the count of its finite values, for means.

That is one byte an iteration, all levels together. Here are arrays and bytes only; ``reduced.py`` reads the tables.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochd.store.blocks import COLUMNS, Float32Array, IntArray

FACTOR = 4
MAX_LEVEL = 10
"""The coarsest level, of buckets of 268 million iterations."""
SMALLEST = 256
"""Iterations in a bucket of level 0."""
BUCKETS = 16
"""Buckets in a row."""
FINEST = 4
"""Buckets of a level that make the narrowest bucket read from it, but for level 0: no more than a fifth is lost."""

_VERSION = 1
_HEADER = struct.Struct("<Bq")  # version, iterations an epoch
_COLUMN_OF = np.repeat(np.arange(len(COLUMNS)), 2)  # entries 2c and 2c+1 are column c's minimum and maximum
_ENTRY = np.arange(len(_COLUMN_OF))
_STORED = np.dtype(
    [
        ("offset", "<u4", len(_ENTRY)),  # within the bucket
        ("values", "<f4", (len(_ENTRY), len(COLUMNS))),
        ("sums", "<f8", len(COLUMNS)),
        ("counts", "<u4", len(COLUMNS)),
    ]
)
_ROW_BYTES = _HEADER.size + BUCKETS * _STORED.itemsize

StoredBuckets = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True, eq=False)
class LevelRow:
    """Sixteen full buckets of a level; row p begins with iteration p·span+1."""

    level: int
    part: int
    buckets: StoredBuckets

    def as_row(self, iterations_per_epoch: int) -> dict[str, Any]:
        """Write it as columns of ``tables.iteration_levels``."""
        data = _HEADER.pack(_VERSION, iterations_per_epoch) + self.buckets.tobytes()
        return {"level": self.level, "part": self.part, "data": data}


def size_of(level: int) -> int:
    """Tell how many iterations a bucket of a level holds."""
    return int(SMALLEST * FACTOR**level)


def span_of(level: int) -> int:
    """Tell how many iterations a row of a level covers."""
    return BUCKETS * size_of(level)


class LevelBuilder:
    """Makes the rows of an attempt that records every iteration after iteration ``after``, in its order.

    Holds 4096 iterations and less than one row a level, besides the rows that nobody has taken off ``rows`` yet.
    """

    def __init__(self, after: int = 0) -> None:
        self.rows: list[LevelRow] = []
        self._after = self._iteration = after
        self._columns = np.empty((len(COLUMNS), span_of(0)), np.float32)
        self._begun: dict[int, list[StoredBuckets]] = {}

    def add(self, columns: Float32Array) -> None:
        """Take the columns, shape (4, n), of the n iterations that follow."""
        done, span = 0, span_of(0)
        while done < columns.shape[1]:
            part, start = divmod(self._iteration, span)
            taken = min(span - start, columns.shape[1] - done)
            self._columns[:, start : start + taken] = columns[:, done : done + taken]
            self._iteration += taken
            done += taken
            if start + taken == span and self._after <= part * span:
                self._complete(0, part, _reduce(self._columns))

    def _complete(self, level: int, part: int, buckets: StoredBuckets) -> None:
        self.rows.append(LevelRow(level, part, buckets))
        if level == MAX_LEVEL:
            return
        parent, place = divmod(part, FACTOR)
        begun = self._begun.setdefault(level, [])
        if place != len(begun):  # the attempt began within the parent's span
            return
        begun.append(_coarser(buckets, size_of(level)))
        if len(begun) == FACTOR:
            self._begun[level] = []
            self._complete(level + 1, parent, np.concatenate(begun))


def _reduce(columns: Float32Array) -> StoredBuckets:
    """Make the buckets of level 0 of the columns of one row's iterations."""
    shaped = columns.reshape(len(COLUMNS), BUCKETS, SMALLEST)
    finite = np.isfinite(shaped)
    buckets = np.empty(BUCKETS, _STORED)
    offset = buckets["offset"]
    offset[:, 0::2] = np.where(finite, shaped, np.inf).argmin(axis=2).T
    offset[:, 1::2] = np.where(finite, shaped, -np.inf).argmax(axis=2).T
    clean = np.where(finite, shaped, np.float32(np.nan))
    buckets["values"] = clean[:, np.arange(BUCKETS)[:, None], offset].transpose(1, 2, 0)
    buckets["sums"] = shaped.sum(axis=2, dtype=np.float64, where=finite).T
    buckets["counts"] = finite.sum(axis=2).T
    return buckets


def _coarser(buckets: StoredBuckets, size: int) -> StoredBuckets:
    """Make of the buckets of a row, of ``size`` iterations, those of the next level."""
    shape = (BUCKETS // FACTOR, FACTOR, len(_ENTRY))
    own = buckets["values"][:, _ENTRY, _COLUMN_OF].reshape(shape)
    child = np.empty((shape[0], len(_ENTRY)), np.int64)
    child[:, 0::2] = np.where(np.isnan(own), np.inf, own)[:, :, 0::2].argmin(axis=1)
    child[:, 1::2] = np.where(np.isnan(own), -np.inf, own)[:, :, 1::2].argmax(axis=1)
    chosen = (np.arange(shape[0])[:, None] * FACTOR + child, _ENTRY)
    coarse = np.empty(shape[0], _STORED)
    coarse["offset"] = buckets["offset"][chosen] + child * size
    coarse["values"] = buckets["values"][chosen]
    coarse["sums"] = buckets["sums"].reshape(shape[0], FACTOR, -1).sum(axis=1)
    coarse["counts"] = buckets["counts"].reshape(shape[0], FACTOR, -1).sum(axis=1)
    return coarse


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Runs of iterations as they are read, n of them, reduced to k of the columns.

    ``iterations`` (n, 2k) and ``values`` (n, 2k, k) are those of the columns' minima and maxima, in turn; ``sums`` and
    ``counts`` (n, k) of the finite values; ``last`` and ``iterations_per_epoch`` (n,) of each run, the latter the same
    for all of a job.
    """

    iterations: IntArray
    values: Float32Array
    sums: npt.NDArray[np.float64]
    counts: IntArray
    last: IntArray
    iterations_per_epoch: IntArray


def is_readable(data: bytes) -> bool:
    """Tell whether this version wrote a row's value. A newer one's is as good as missing."""
    return len(data) == _ROW_BYTES and data[0] == _VERSION


def read(level: int, rows: Sequence[tuple[int, bytes]], columns: Sequence[str]) -> Buckets:
    """Read readable rows of a level, given by part and value, at least one."""
    stored = np.frombuffer(b"".join(data[_HEADER.size :] for _, data in rows), _STORED)
    places = [COLUMNS.index(name) for name in columns]
    entries = [entry for place in places for entry in (2 * place, 2 * place + 1)]
    parts = np.array([part for part, _ in rows], np.int64)
    first = ((parts[:, None] * BUCKETS + np.arange(BUCKETS)) * size_of(level) + 1).ravel()
    per_epoch = np.array([_HEADER.unpack_from(data)[1] for _, data in rows], np.int64)
    return Buckets(
        iterations=first[:, None] + stored["offset"][:, entries],
        values=stored["values"][:, entries][:, :, places],
        sums=stored["sums"][:, places],
        counts=stored["counts"][:, places].astype(np.int64),
        last=first + size_of(level) - 1,
        iterations_per_epoch=np.repeat(per_epoch, BUCKETS),
    )


def reduce_iterations(
    iterations: IntArray, columns: Float32Array, iterations_per_epoch: IntArray, width: int
) -> Buckets:
    """Reduce iterations themselves, ascending, at least one, to the aligned buckets of a width they fall into.

    What others lie between is reduced apart, so that ``combine`` finds all in their order. ``columns`` are (n, k), with
    NaN where there is no finite value.
    """
    follows = np.diff(iterations, prepend=iterations[0] - 1) == 1
    is_same_bucket = np.diff((iterations - 1) // width, prepend=-1) == 0
    starts = np.flatnonzero(~(follows & is_same_bucket))
    finite = np.isfinite(columns)
    found = _extremes(columns, columns, starts)
    last = np.append(starts[1:], len(iterations)) - 1
    return Buckets(
        iterations=iterations[found],
        values=columns[found],
        sums=np.add.reduceat(np.where(finite, columns, 0), starts, dtype=np.float64),
        counts=np.add.reduceat(finite, starts, dtype=np.int64),
        last=iterations[last],
        iterations_per_epoch=iterations_per_epoch[last],
    )


def combine(found: Sequence[Buckets], width: int) -> Buckets:
    """Make aligned buckets of a width, ascending, out of finer ones in any order, at least one."""
    order = np.argsort(np.concatenate([one.last for one in found]))
    fine = Buckets(
        **{
            name: np.concatenate([getattr(one, name) for one in found])[order]
            for name in Buckets.__dataclass_fields__
        }
    )
    starts = np.flatnonzero(np.diff((fine.last - 1) // width, prepend=-1))
    entries = np.arange(fine.iterations.shape[1])
    own = fine.values[:, entries, entries // 2]
    chosen = (_extremes(own[:, 0::2], own[:, 1::2], starts), entries)
    last = np.append(starts[1:], len(fine.last)) - 1
    return Buckets(
        iterations=fine.iterations[chosen],
        values=fine.values[chosen],
        sums=np.add.reduceat(fine.sums, starts),
        counts=np.add.reduceat(fine.counts, starts),
        last=fine.last[last],
        iterations_per_epoch=fine.iterations_per_epoch[last],
    )


def _extremes(low: Float32Array, high: Float32Array, starts: IntArray) -> IntArray:
    """Find where columns of ``low`` are smallest and those of ``high`` largest in each bucket, first of equals.

    Both are (n, k); the positions (m, 2k) say the minimum and maximum of each column in turn. NaN is neither; where
    there is nothing else, it is the bucket's first.
    """
    low = np.where(np.isfinite(low), low, np.inf)
    high = np.where(np.isfinite(high), high, -np.inf)
    found = np.empty((len(starts), 2 * low.shape[1]), np.int64)
    for column in range(low.shape[1]):
        found[:, 2 * column] = _first_of(low[:, column], np.minimum, starts)
        found[:, 2 * column + 1] = _first_of(high[:, column], np.maximum, starts)
    return found


def _first_of(values: npt.NDArray[np.floating[Any]], extreme: np.ufunc, starts: IntArray) -> IntArray:
    lengths = np.diff(starts, append=len(values))
    hits = np.flatnonzero(values == np.repeat(extreme.reduceat(values, starts), lengths))
    return hits[np.searchsorted(hits, starts)]


def grid(first: int, last: int, buckets: int, *, single: int = SMALLEST) -> tuple[int, int]:
    """Choose the buckets' width for iterations ``first … last``, and the coarsest level to read them from.

    No more than ``buckets`` (>= 1) aligned buckets of that width hold them all. Level -1 is the iterations themselves,
    for buckets of less than ``single`` (<= 256). Widths are few, so that a series that grows keeps the one it has for
    a while.
    """
    width, level = _least_width(-(-(last - first + 1) // buckets), single)
    while (last - 1) // width - (first - 1) // width >= buckets:
        width, level = _least_width(width + 1, single)
    return width, level


def _least_width(iterations: int, single: int) -> tuple[int, int]:
    if iterations < single:
        return iterations, -1
    level = 0
    while level < MAX_LEVEL and iterations > FINEST * size_of(level + 1) - size_of(level):
        level += 1
    return -(-iterations // size_of(level)) * size_of(level), level
