"""A job's one true curve, read across its attempts.

Each attempt contributes from its first iteration on: a later attempt replaces what earlier ones recorded from
there on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from epochd.errors import NotFoundError
from epochd.store.blocks import block_of
from epochd.store.database import Transaction
from epochd.store.tables import attempts, iteration_blocks

BLOCKS_AT_ONCE = 64
"""Blocks in memory at a time: about 2.5 MB of text."""
MAX_ATTEMPT = 2**31 - 1
"""The most that Postgres compares an attempt's number with."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Iterations ``first … last`` of the curve come from this attempt."""

    attempt_id: int
    first: int
    last: int

    @property
    def iterations(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


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

    Raises:
        NotFoundError: code ``attempt_not_found``.

    """
    query = select(attempts.c.id, attempts.c.first_iteration, attempts.c.last_iteration)
    query = query.where(attempts.c.job_number == job_number).order_by(attempts.c.number.desc())
    if attempt is not None:
        query = query.where(attempts.c.number == attempt)
    known = attempt is None or attempt <= MAX_ATTEMPT
    rows = tx.execute(query).all() if known else []
    if attempt is not None and not rows:
        raise NotFoundError(f"the job has no attempt {attempt}", code="attempt_not_found")
    return _visible([Segment(*row) for row in rows])


def _visible(newest_first: Sequence[Segment]) -> list[Segment]:
    found: list[Segment] = []
    for segment in newest_first:
        if segment.last < segment.first:  # nothing recorded yet, so nothing replaced
            continue
        last = min(segment.last, found[-1].first - 1) if found else segment.last
        if segment.first <= last:
            found.append(Segment(segment.attempt_id, segment.first, last))
    return found[::-1]


def clip(curve: Sequence[Segment], after: int, limit: int) -> list[Segment]:
    """Take from a curve the ``limit`` iterations that follow iteration ``after``."""
    taken: list[Segment] = []
    for segment in curve:
        first = max(segment.first, after + 1)
        last = min(segment.last, first + limit - 1)
        if first <= last:
            taken.append(Segment(segment.attempt_id, first, last))
            limit -= last - first + 1
    return taken


def pieces(tx: Transaction, curve: Sequence[Segment], columns: Sequence[str]) -> Iterator[Piece]:
    """Read the blocks under a curve, ascending, with the texts of these columns, few at a time."""
    for segment in curve:
        end = block_of(segment.last) + 1
        for begin in range(block_of(segment.first), end, BLOCKS_AT_ONCE):
            rows = tx.execute(_blocks(segment, begin, min(begin + BLOCKS_AT_ONCE, end), columns))
            yield from (_piece(segment, *row[:3], texts=tuple(row[3:])) for row in rows)


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
