"""A whole series as few points, at a cost that does not grow with it.

The iterations are divided into aligned buckets of equal width. Rows of the coarsest level that fits cover most of the
curve, finer ones what they leave over, and blocks the rest: a few thousand iterations at the ends of each attempt's
part. A row that is missing, of what an earlier version recorded, is replaced by finer ones: the answer is the same.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sqlalchemy import and_, or_, select

from epochd.store import levels
from epochd.store.blocks import COLUMNS, Float32Array, IntArray, dump, load
from epochd.store.columns import answer, chosen, spliced
from epochd.store.curve import BLOCKS_AT_ONCE, Piece, Segment, pieces, segments, within
from epochd.store.database import Transaction
from epochd.store.jobs import JobRow
from epochd.store.levels import Buckets
from epochd.store.tables import iteration_levels

Reduction = Literal["extremes", "mean"]

_RANGES_AT_ONCE = 32
_PARTS_AT_ONCE = 256
"""One query asks for so many ranges of so many rows at most: some 25 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """Points of an answer: (n,), (n,) and, with the columns that were asked for, (n, k)."""

    iterations: IntArray
    iterations_per_epoch: IntArray
    values: Float32Array


def reduced(  # noqa: PLR0913 - what to read is named
    tx: Transaction,
    job: JobRow,
    points: int,
    *,
    after: int = 0,
    up_to: int | None = None,
    fields: Sequence[str] | None = None,
    attempt: int | None = None,
    reduction: Reduction = "extremes",
) -> bytes:
    """Write the curve with at most ``points`` (>= 1) iterations, in the shape of ``iterations_json``.

    The whole of it, or what lies beyond iteration ``after`` and not beyond ``up_to``.

    With ``extremes`` the iterations stay in which a chosen column is smallest or largest in its bucket (the first of
    equals; train_loss when no column is chosen), and the first and the newest of all; when ``points`` is too small
    even for one bucket's, the newest goes before the first, and that before the extremes, column by column. With
    ``mean`` each bucket is one point: its last iteration, and the mean of each column's finite values. A curve that
    is short enough stays as it is. ``next`` is null.

    Raises:
        NotFoundError: code ``attempt_not_found``.

    """
    curve = within(segments(tx, job.number, attempt), after, up_to)
    names, stored = chosen(fields)
    if sum(segment.iterations for segment in curve) <= points:
        return answer(spliced(pieces(tx, curve, stored), names, stored), None)
    reduce = _means if reduction == "mean" else _extremes
    return answer(_written(reduce(tx, curve, points, stored or COLUMNS[:1]), names, stored), None)


def _written(found: _Points, names: Sequence[str], stored: Sequence[str]) -> dict[str, bytes]:
    columns: dict[str, npt.NDArray[Any]] = {"iteration": found.iterations}
    if "epoch" in names:
        columns["epoch"] = (found.iterations - 1) // found.iterations_per_epoch + 1
    columns |= {name: found.values[:, place] for place, name in enumerate(stored)}
    return {name: dump(np.ascontiguousarray(column)) for name, column in columns.items()}


def _means(tx: Transaction, curve: Sequence[Segment], points: int, columns: Sequence[str]) -> _Points:
    # A bucket is one point here: with the usual limit a plot of four columns would read a million values.
    found = _buckets(tx, curve, points, columns, single=levels.SMALLEST // len(columns))
    nothing = found.counts == 0
    means = np.where(nothing, np.nan, found.sums / np.where(nothing, 1, found.counts))
    return _Points(found.last, found.iterations_per_epoch, means.astype(np.float32))


def _extremes(tx: Transaction, curve: Sequence[Segment], points: int, columns: Sequence[str]) -> _Points:
    entries = 2 * len(columns)
    found = _buckets(tx, curve, max(1, (points - 2) // entries), columns)
    ends = [replace(curve[-1], first=curve[-1].last), replace(curve[0], last=curve[0].first)]
    newest_and_first = _read(pieces(tx, ends, columns))
    # Column by column, so that what comes first is what has to stay.
    every = _Points(
        np.append(newest_and_first.iterations, found.iterations.T),
        np.append(newest_and_first.iterations_per_epoch, np.tile(found.iterations_per_epoch, entries)),
        np.concatenate([newest_and_first.values, *found.values.swapaxes(0, 1)]),
    )
    _, places = np.unique(every.iterations, return_index=True)
    places = places[places <= np.sort(places)[:points][-1]]
    return _Points(every.iterations[places], every.iterations_per_epoch[places], every.values[places])


def _buckets(
    tx: Transaction,
    curve: Sequence[Segment],
    count: int,
    columns: Sequence[str],
    *,
    single: int = levels.SMALLEST,
) -> Buckets:
    """Reduce a curve that is not empty to at most ``count`` buckets of equal width."""
    width, coarsest = levels.grid(curve[0].first, curve[-1].last, count, single=single)
    gaps, found = list(curve), []
    for level in range(coarsest, -1, -1):
        more, gaps = _cover(tx, gaps, level, columns)
        found += more
    found += [_reduced(one, width) for one in _portions(pieces(tx, gaps, columns))]
    return levels.combine(found, width)


def _cover(
    tx: Transaction, gaps: Sequence[Segment], level: int, columns: Sequence[str]
) -> tuple[list[Buckets], list[Segment]]:
    """Read the rows of a level that lie within ``gaps``, and tell what these leave over."""
    found: list[Buckets] = []
    known: set[tuple[int, int]] = set()
    ranges = _ranges(gaps, level)
    while wanted := list(islice(ranges, _RANGES_AT_ONCE)):
        rows = [row for row in tx.execute(_rows(level, wanted)) if levels.is_readable(row.data)]
        if rows:
            found.append(levels.read(level, [(row.part, row.data) for row in rows], columns))
            known |= {(row.attempt_id, row.part) for row in rows}
    return found, [left for gap in gaps for left in _left_over(gap, known, level)]


def _ranges(gaps: Iterable[Segment], level: int) -> Iterator[tuple[int, range]]:
    """Give the attempts and parts of the rows that lie within gaps."""
    for gap in gaps:
        parts = _parts_within(gap, level)
        for begin in range(parts.start, parts.stop, _PARTS_AT_ONCE):
            yield gap.attempt_id, range(begin, min(begin + _PARTS_AT_ONCE, parts.stop))


def _parts_within(gap: Segment, level: int) -> range:
    span = levels.span_of(level)
    return range(-(-(gap.first - 1) // span), gap.last // span)


def _rows(level: int, wanted: Iterable[tuple[int, range]]) -> Any:
    c = iteration_levels.c
    within = [and_(c.attempt_id == id_, c.part >= parts.start, c.part < parts.stop) for id_, parts in wanted]
    return select(c.attempt_id, c.part, c.data).where(c.level == level, or_(*within))


def _left_over(gap: Segment, known: Container[tuple[int, int]], level: int) -> Iterator[Segment]:
    first, span = gap.first, levels.span_of(level)
    for part in _parts_within(gap, level):
        if (gap.attempt_id, part) in known:
            if first <= part * span:
                yield replace(gap, first=first, last=part * span)
            first = (part + 1) * span + 1
    if first <= gap.last:
        yield replace(gap, first=first)


def _portions(found: Iterator[Piece]) -> Iterator[_Points]:
    while portion := list(islice(found, BLOCKS_AT_ONCE)):
        yield _read(portion)


def _read(found: Iterable[Piece]) -> _Points:
    """Read pieces, of which there is one at least, as arrays."""
    known = list(found)
    sizes = [piece.stop - piece.start for piece in known]
    return _Points(
        np.concatenate([np.arange(piece.first, piece.last + 1) for piece in known]),
        np.repeat([piece.iterations_per_epoch for piece in known], sizes),
        np.concatenate([_values(piece) for piece in known]),
    )


def _values(piece: Piece) -> Float32Array:
    return np.stack([load(text)[piece.start : piece.stop] for text in piece.texts], axis=1)


def _reduced(portion: _Points, width: int) -> Buckets:
    return levels.reduce_iterations(portion.iterations, portion.values, portion.iterations_per_epoch, width)
