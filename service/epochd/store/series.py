"""A whole series, read in parts: neither memory nor a transaction lasts as long as somebody takes to read it.

What belongs to a series is settled when it is opened; what is recorded afterwards is no part of it. Each part is read
in a short transaction of its own, and nothing is held between two.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy.typing as npt
from sqlalchemy import func, select

from epochd.errors import NotFoundError
from epochd.store.columns import chosen, loaded, spliced
from epochd.store.curve import Piece, Segment, is_shown, page, pieces, segments, shown_epochs, within
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow
from epochd.store.metrics import EpochRow
from epochd.store.tables import BLOCK_ITERATIONS, attempts, epoch_metrics

ITERATIONS_A_PART: Final = 64 * BLOCK_ITERATIONS
"""As arrays about 2 MB."""
TEXT_ITERATIONS_A_PART: Final = 16 * BLOCK_ITERATIONS
"""As text about 1 MB."""
EPOCHS_A_PART: Final = 2000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IterationSeries:
    """Iterations of a curve, with the columns ``names``; ``following`` is what to pass as ``after`` for more."""

    curve: tuple[Segment, ...]
    names: tuple[str, ...]
    following: int | None


@dataclass(frozen=True, slots=True)
class EpochSeries:
    """Epochs beyond ``after`` up to ``last``, of which ``best`` is the best one; ``shown`` as ``curve`` gives it."""

    shown: tuple[tuple[int, int, int], ...]
    after: int
    last: int
    best: int | None
    following: int | None


def open_iterations(  # noqa: PLR0913 - what to read is named
    tx: Transaction,
    job: JobRow,
    *,
    after: int = 0,
    up_to: int | None = None,
    limit: int | None = None,
    fields: Sequence[str] | None = None,
    attempt: int | None = None,
) -> IterationSeries:
    """Settle which iterations to read: the ``limit`` that follow ``after``, by default all, none beyond ``up_to``.

    ``fields`` of ``columns.FIELDS`` (default: all) beside ``iteration``; of the job's curve, or of one attempt.

    Raises:
        NotFoundError: code ``attempt_not_found``.

    """
    taken, following = page(within(segments(tx, job.number, attempt), after, up_to), after, limit)
    return IterationSeries(tuple(taken), tuple(chosen(fields)[0]), following)


def column_parts(db: Database, series: IterationSeries) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Read it as arrays of equal length: ``iteration`` and ``epoch`` int64, the others float32, null as NaN.

    Raises:
        NotFoundError: the job was deleted in the meantime, code ``job_not_found``.
        DatabaseUnavailableError: the database does not answer.

    """
    return _parts(db, series, ITERATIONS_A_PART, loaded)


def text_parts(db: Database, series: IterationSeries) -> Iterator[dict[str, str]]:
    """Read it as text: of each column the values as JSON writes them, separated by commas.

    Raises what ``column_parts`` does.
    """
    for part in _parts(db, series, TEXT_ITERATIONS_A_PART, spliced):
        yield {name: text[1:-1].decode() for name, text in part.items()}


def iteration_parts(  # noqa: PLR0913 - what to read is named
    db: Database,
    job: JobRow,
    *,
    after: int = 0,
    limit: int | None = None,
    fields: Sequence[str] | None = None,
    attempt: int | None = None,
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Open and read a series as arrays; see ``open_iterations`` and ``column_parts``."""
    with db.read() as tx:
        series = open_iterations(tx, job, after=after, limit=limit, fields=fields, attempt=attempt)
    yield from column_parts(db, series)


def _parts(
    db: Database,
    series: IterationSeries,
    size: int,
    read: Callable[[Sequence[Piece], Sequence[str], Sequence[str]], T],
) -> Iterator[T]:
    names, stored = chosen(series.names)
    for part in _divided(series.curve, size):
        with db.read() as tx:
            found = list(pieces(tx, _located(tx, part), stored))
        if sum(piece.stop - piece.start for piece in found) != sum(segment.iterations for segment in part):
            raise _gone()
        yield read(found, names, stored)


def _divided(curve: Sequence[Segment], size: int) -> Iterator[list[Segment]]:
    """Cut a curve at multiples of ``size``, which are ends of blocks."""
    first = curve[0].first if curve else 1
    end = curve[-1].last if curve else 0
    while first <= end:
        last = ((first - 1) // size + 1) * size
        yield [
            replace(segment, first=max(segment.first, first), last=min(segment.last, last))
            for segment in curve
            if segment.first <= last and segment.last >= first
        ]
        first = last + 1


def _located(tx: Transaction, part: Sequence[Segment]) -> list[Segment]:
    """Look up where the iterations are now: they may have moved into an archive since the series was opened."""
    ids = [segment.attempt_id for segment in part]
    rows = tx.execute(select(attempts.c.id, attempts.c.archive).where(attempts.c.id.in_(ids)))
    archive = {id_: path for id_, path in rows}  # noqa: C416 - rows are no pairs to dict()
    if not archive.keys() >= set(ids):
        raise _gone()
    return [replace(segment, archive=archive[segment.attempt_id]) for segment in part]


def _gone() -> NotFoundError:
    return NotFoundError("the job was deleted while it was read", code="job_not_found")


def open_epochs(
    tx: Transaction, job: JobRow, *, after: int = 0, limit: int | None = None, attempt: int | None = None
) -> EpochSeries:
    """Settle which epochs to read: the ``limit`` that follow epoch ``after``, by default all.

    Of the job's curve, or of one attempt. In the curve an epoch gives way to a later attempt that trained any of its
    iterations again.

    Raises:
        NotFoundError: code ``attempt_not_found``.

    """
    if attempt is not None:
        segments(tx, job.number, attempt)  # raises when there is none
    shown = tuple(shown_epochs(tx, job.number, attempt))
    if not shown:
        return EpochSeries((), after, after, None, None)
    c = epoch_metrics.c
    best = tx.execute(select(func.max(c.epoch)).where(is_shown(shown), c.is_best)).scalar_one()
    last, more = _last_epoch(tx, shown, after, limit)
    return EpochSeries(shown, after, last, best, last if more else None)


def _last_epoch(
    tx: Transaction, shown: Sequence[tuple[int, int, int]], after: int, limit: int | None
) -> tuple[int, bool]:
    """Give the last of ``limit`` epochs, ``after`` when there is none, and whether there are more."""
    c = epoch_metrics.c
    end = tx.execute(select(func.max(c.epoch)).where(is_shown(shown))).scalar_one()
    if end is None or end <= after:
        return after, False
    if limit is None:
        return end, False
    query = select(c.epoch).where(is_shown(shown), c.epoch > after).order_by(c.epoch)
    last = tx.execute(query.offset(limit - 1).limit(1)).scalar()
    return (end, False) if last is None else (last, last < end)


def epoch_parts(db: Database, series: EpochSeries) -> Iterator[list[EpochRow]]:
    """Read it, ascending.

    Raises:
        NotFoundError: the job was deleted in the meantime, code ``job_not_found``.
        DatabaseUnavailableError: the database does not answer.

    """
    c, after = epoch_metrics.c, series.after
    while after < series.last:
        query = select(*c).where(is_shown(series.shown), c.epoch > after, c.epoch <= series.last)
        with db.read() as tx:
            rows = [EpochRow(*row) for row in tx.execute(query.order_by(c.epoch).limit(EPOCHS_A_PART))]
        if not rows:
            raise _gone()
        yield [replace(row, is_best=row.epoch == series.best) for row in rows]
        after = rows[-1].epoch


def metric_names(db: Database, series: EpochSeries) -> list[str]:
    """Tell the names of all metrics that any epoch of it has, in the order in which they came up.

    Raises what ``epoch_parts`` does.
    """
    return list(
        dict.fromkeys(name for part in epoch_parts(db, series) for row in part for name in row.metrics)
    )
