"""A job's one true curve, read across its attempts.

Each attempt contributes from its first iteration on: a later attempt replaces what earlier ones recorded from
there on.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, func, or_, select

from epochd.errors import NotFoundError
from epochd.store import archive
from epochd.store.blocks import block_of
from epochd.store.database import Transaction, archives
from epochd.store.tables import attempts, epoch_metrics, iteration_blocks, jobs

BLOCKS_AT_ONCE = 64
"""Blocks in memory at a time: about 2.5 MB of text."""
MAX_ATTEMPT = 2**31 - 1
"""The most that Postgres compares an attempt's number with."""
NO_EPOCH = 2**31 - 1
"""Beyond every epoch, and the most that Postgres compares an epoch with."""
NO_ITERATION = 2**63 - 1
"""Beyond every iteration, and the most that Postgres compares one with."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Iterations ``first … last`` of the curve come from this attempt."""

    attempt_id: int
    first: int
    last: int
    archive: str | None = None
    """The file that they were moved to, relative to ``database.archives``; None: they are in the database."""

    @property
    def iterations(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Recorded:
    """What bounds resumption: nothing that is not recorded may be skipped.

    ``segments`` are (number of the attempt, first, last iteration), ascending; ``epoch`` is the newest one recorded on
    this curve, 0 when there is none.
    """

    segments: tuple[tuple[int, int, int], ...] = ()
    epoch: int = 0

    @property
    def iteration(self) -> int:
        """The newest recorded iteration, 0 when there is none."""
        return self.segments[-1][2] if self.segments else 0

    def holds(self, *, attempt: int, iteration: int, epoch: int) -> bool:
        """Tell whether a state after so many iterations and epochs may be resumed from.

        It may when the curve holds its newest completed epoch, and its iteration as ``attempt`` trained it.
        """
        inside = any(
            number == attempt and first <= iteration <= last for number, first, last in self.segments
        )
        return inside and epoch <= self.epoch


@dataclass(frozen=True, slots=True)
class Piece:
    """Iterations ``first … last`` of the curve, all of one block; ``texts`` are those of the whole block.

    ``start`` and ``stop`` say which of the block's values they are; ``whole`` when all.
    """

    first: int
    last: int
    start: int
    stop: int
    whole: bool
    iterations_per_epoch: int
    texts: tuple[str, ...]


def segments(tx: Transaction, job_number: int, attempt: int | None = None) -> list[Segment]:
    """Tell which attempt each part of the curve comes from; with ``attempt``, all that it recorded.

    Attempts before a retry from scratch are no part of the curve any more.

    Raises:
        NotFoundError: code ``attempt_not_found``.

    """
    c = attempts.c
    columns = (c.id, c.first_iteration, c.last_iteration, c.archive)
    query = _newest_first(columns, job_number, attempt)
    known = attempt is None or attempt <= MAX_ATTEMPT
    rows = tx.execute(query).all() if known else []
    if attempt is not None and not rows:
        raise NotFoundError(f"the job has no attempt {attempt}", code="attempt_not_found")
    return _visible([Segment(*row) for row in rows])


def former_segments(tx: Transaction, job_number: int, newest: int) -> list[Segment]:
    """Tell the same of the curve as it was while this attempt was the newest."""
    c = attempts.c
    query = _newest_first((c.id, c.first_iteration, c.last_iteration, c.archive), job_number, None)
    return _visible([Segment(*row) for row in tx.execute(query.where(c.number <= newest))])


def _newest_first(columns: Sequence[Any], job_number: int, attempt: int | None) -> Any:
    """Select the attempts that may contribute to the curve, or a single one."""
    restarted_after = select(jobs.c.restarted_after).where(jobs.c.number == job_number).scalar_subquery()
    query = select(*columns).where(attempts.c.job_number == job_number).order_by(attempts.c.number.desc())
    if attempt is None:
        return query.where(attempts.c.number > restarted_after)
    return query.where(attempts.c.number == attempt)


def _visible(newest_first: Sequence[Segment]) -> list[Segment]:
    found: list[Segment] = []
    for segment in newest_first:
        if segment.last < segment.first:  # nothing recorded yet, so nothing replaced
            continue
        last = min(segment.last, found[-1].first - 1) if found else segment.last
        if segment.first <= last:
            found.append(replace(segment, last=last))
    return found[::-1]


def shown_epochs(tx: Transaction, job_number: int, attempt: int | None = None) -> list[tuple[int, int, int]]:
    """Give (attempt id, epoch, iteration) from which on later attempts replace what this attempt recorded.

    In the curve an epoch gives way to a later attempt that trained any of its iterations again.
    """
    columns = (attempts.c.id, _first_epoch(), attempts.c.first_iteration, attempts.c.last_iteration)
    shown, epoch, iteration = [], NO_EPOCH, NO_ITERATION
    for id_, first_epoch, first, last in tx.execute(_newest_first(columns, job_number, attempt)):
        shown.append((id_, epoch, iteration))
        epoch = epoch if first_epoch is None else min(epoch, first_epoch)
        iteration = iteration if last < first else min(iteration, first)
    return shown


def _first_epoch() -> Any:
    mine = select(func.min(epoch_metrics.c.epoch)).where(epoch_metrics.c.attempt_id == attempts.c.id)
    return mine.correlate(attempts).scalar_subquery()


def is_shown(shown: Sequence[tuple[int, int, int]]) -> Any:
    """Write ``shown_epochs``, of which there is at least one, as the condition that a row of an epoch meets."""
    c = epoch_metrics.c
    return or_(
        *(and_(c.attempt_id == id_, c.epoch < epoch, c.iteration < first) for id_, epoch, first in shown)
    )


def recorded(tx: Transaction, job_number: int) -> Recorded:
    """Read what bounds the resumption of a job: its curve by attempts, and the newest epoch on it."""
    shown = shown_epochs(tx, job_number)
    if not shown:
        return Recorded()
    numbers = select(attempts.c.id, attempts.c.number).where(attempts.c.job_number == job_number)
    number = {id_: number for id_, number in tx.execute(numbers)}  # noqa: C416 - rows are no pairs to dict()
    newest = select(func.coalesce(func.max(epoch_metrics.c.epoch), 0)).where(is_shown(shown))
    return Recorded(
        segments=tuple((number[one.attempt_id], one.first, one.last) for one in segments(tx, job_number)),
        epoch=tx.execute(newest).scalar_one(),
    )


def clip(curve: Sequence[Segment], after: int, limit: int) -> list[Segment]:
    """Take from a curve the ``limit`` iterations that follow iteration ``after``."""
    taken: list[Segment] = []
    for segment in curve:
        first = max(segment.first, after + 1)
        last = min(segment.last, first + limit - 1)
        if first <= last:
            taken.append(replace(segment, first=first, last=last))
            limit -= last - first + 1
    return taken


def within(curve: Sequence[Segment], after: int, up_to: int | None) -> list[Segment]:
    """Take from a curve what lies beyond iteration ``after`` and not beyond ``up_to`` (None: its end)."""
    end = NO_ITERATION if up_to is None else up_to
    cut = (replace(one, first=max(one.first, after + 1), last=min(one.last, end)) for one in curve)
    return [one for one in cut if one.first <= one.last]


def page(curve: Sequence[Segment], after: int, limit: int | None) -> tuple[list[Segment], int | None]:
    """Take the ``limit`` iterations (None: all) that follow ``after``, and tell what to pass as ``after`` for more.

    That is None when there is no more.
    """
    end = curve[-1].last if curve else 0
    taken = clip(curve, after, end if limit is None else limit)
    more = bool(taken) and taken[-1].last < end
    return taken, taken[-1].last if more else None


def pieces(tx: Transaction, curve: Sequence[Segment], columns: Sequence[str]) -> Iterator[Piece]:
    """Read the blocks under a curve, ascending, with the texts of these columns, few at a time."""
    for segment in curve:
        end = block_of(segment.last) + 1
        for begin in range(block_of(segment.first), end, BLOCKS_AT_ONCE):
            rows = _rows(tx, segment, begin, min(begin + BLOCKS_AT_ONCE, end), columns)
            yield from (_piece(segment, *row[:3], texts=tuple(row[3:])) for row in rows)


def _rows(tx: Transaction, segment: Segment, begin: int, end: int, columns: Sequence[str]) -> Iterable[Any]:
    if segment.archive is None:
        return tx.execute(_blocks(segment, begin, end, columns))
    return archive.blocks(archives(tx), segment.archive, segment.attempt_id, range(begin, end), columns)


def _blocks(segment: Segment, begin: int, end: int, columns: Sequence[str]) -> Any:
    c = iteration_blocks.c
    query = select(c.first_iteration, c.iterations, c.iterations_per_epoch, *(c[name] for name in columns))
    return query.where(c.attempt_id == segment.attempt_id, c.block >= begin, c.block < end).order_by(c.block)


def _piece(
    segment: Segment, block_first: int, iterations: int, iterations_per_epoch: int, *, texts: tuple[str, ...]
) -> Piece:
    first = max(segment.first, block_first)
    last = min(segment.last, block_first + iterations - 1)
    return Piece(
        first=first,
        last=last,
        start=first - block_first,
        stop=last - block_first + 1,
        whole=last - first + 1 == iterations,
        iterations_per_epoch=iterations_per_epoch,
        texts=texts,
    )
