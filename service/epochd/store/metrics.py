"""What training measured: iterations in columns, epochs in rows.

Written by the recorder of an attempt, and only while the attempt has not ended. Read as the job's one true
curve (``curve.py``), or as what a single attempt recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy.typing as npt
from sqlalchemy import BigInteger, Update, bindparam, case, func, select, update

from epochd.store import attempts as attempts_store
from epochd.store.blocks import Block
from epochd.store.columns import FIELDS, answer, chosen, loaded, spliced
from epochd.store.curve import NO_EPOCH, is_shown, page, pieces, segments, shown_epochs, within
from epochd.store.database import Transaction
from epochd.store.jobs import JobRow
from epochd.store.levels import LevelRow
from epochd.store.reduced import reduced
from epochd.store.rows import dump, insert_many, upsert
from epochd.store.tables import attempts, epoch_metrics, iteration_blocks, iteration_levels

__all__ = [
    "FIELDS",
    "Block",
    "EpochRow",
    "NewEpoch",
    "epochs",
    "epochs_as_recorded",
    "iteration_columns",
    "iterations_json",
    "last_iteration",
    "record_epochs",
    "record_iterations",
    "reduced",
]


@dataclass(frozen=True, slots=True)
class EpochRow:
    """An epoch as it is read: the columns of ``tables.epoch_metrics``, in their order.

    ``is_best`` is true for the best of all that were recorded, and for no other.
    """

    attempt_id: int
    epoch: int
    iteration: int
    metrics: dict[str, float | None]
    learning_rate: float
    seconds: float
    is_best: bool


class NewEpoch(NamedTuple):
    """An epoch to be stored; ``iteration`` is its last, ``is_best`` says that none was better so far.

    No dataclass, which takes longer to make: there may be a thousand a second.
    """

    epoch: int
    iteration: int
    metrics: dict[str, float | None]
    learning_rate: float
    seconds: float
    is_best: bool


def record_iterations(
    tx: Transaction,
    attempt_id: int,
    iterations_per_epoch: int,
    blocks: Sequence[Block],
    levels: Sequence[LevelRow] = (),
) -> None:
    """Store blocks, ascending, and the rows of the reduced levels that these complete.

    A block that is stored already is overwritten by the longer one.

    Raises:
        AttemptLostError: when the attempt has ended; nothing is stored.

    """
    if not blocks:
        return
    _advance(tx, attempt_id, blocks[0].first, blocks[-1].last)
    fixed = {"attempt_id": attempt_id, "iterations_per_epoch": iterations_per_epoch}
    upsert(tx, iteration_blocks, [{**fixed, **block.as_row()} for block in blocks])
    rows = [{"attempt_id": attempt_id, **row.as_row(iterations_per_epoch)} for row in levels]
    upsert(tx, iteration_levels, rows)


def _advance(tx: Transaction, attempt_id: int, first: int, last: int) -> None:
    if tx.execute(_ADVANCE, {"attempt": attempt_id, "first": first, "last": last}).rowcount == 0:
        raise attempts_store.lost(attempt_id)


def _advance_statement() -> Update:
    a, first, last = attempts.c, bindparam("first", type_=BigInteger), bindparam("last", type_=BigInteger)
    living = update(attempts).where(a.id == bindparam("attempt"), a.finished_at.is_(None))
    return living.values(
        first_iteration=case((a.last_iteration < a.first_iteration, first), else_=a.first_iteration),
        last_iteration=case((a.last_iteration > last, a.last_iteration), else_=last),
    )


_ADVANCE = _advance_statement()
"""Made once: to make a statement takes longer than to execute it, and a recorder does both several times a second."""


def record_epochs(tx: Transaction, attempt_id: int, new: Sequence[NewEpoch]) -> None:
    """Store epochs, ascending; one that is stored already is overwritten.

    Raises:
        AttemptLostError: when the attempt has ended; nothing is stored.

    """
    if not new:
        return
    living = select(attempts.c.id).where(attempts.c.id == attempt_id, attempts.c.finished_at.is_(None))
    if tx.execute(living.with_for_update()).one_or_none() is None:
        raise attempts_store.lost(attempt_id)
    rows = [
        (attempt_id, number, iteration, dump(values), learning_rate, seconds, is_best)
        for number, iteration, values, learning_rate, seconds, is_best in new
    ]
    insert_many(tx, epoch_metrics, rows, overwrite=True)


def last_iteration(tx: Transaction, job: JobRow, attempt: int | None = None) -> int:
    """Give the newest recorded iteration of the job's curve; 0 when there is none."""
    curve = segments(tx, job.number, attempt)
    return curve[-1].last if curve else 0


def iterations_json(  # noqa: PLR0913 - what to read is named
    tx: Transaction,
    job: JobRow,
    *,
    after: int = 0,
    up_to: int | None = None,
    limit: int = 1000,
    fields: Sequence[str] | None = None,
    attempt: int | None = None,
) -> bytes:
    """Write the iterations that follow ``after`` as the JSON ``{"columns": {…}, "next": …}``.

    None beyond ``up_to``, and at most ``limit`` of them; ``fields`` of ``FIELDS`` (default: all) beside
    ``iteration``; of the job's curve, or of one attempt. The stored texts are spliced together unread, but for the
    two blocks that the slice cuts.

    Raises:
        NotFoundError: code ``attempt_not_found``.

    """
    taken, following = page(within(segments(tx, job.number, attempt), after, up_to), after, limit)
    names, stored = chosen(fields)
    return answer(spliced(pieces(tx, taken, stored), names, stored), following)


def iteration_columns(  # noqa: PLR0913 - what to read is named
    tx: Transaction,
    job: JobRow,
    *,
    after: int = 0,
    limit: int | None = None,
    fields: Sequence[str] | None = None,
    attempt: int | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Read the same as arrays of equal length: ``iteration`` and ``epoch`` int64, the others float32.

    null is NaN. Without ``limit`` all that follow ``after``.
    """
    taken, _ = page(segments(tx, job.number, attempt), after, limit)
    names, stored = chosen(fields)
    return loaded(pieces(tx, taken, stored), names, stored)


def epochs(
    tx: Transaction, job: JobRow, *, after: int = 0, limit: int = 1000, attempt: int | None = None
) -> tuple[list[EpochRow], int | None]:
    """Read the epochs that follow epoch ``after``, ascending, and what to pass as ``after`` for more.

    That is None when there is no more. Of the job's curve, or of one attempt. In the curve an epoch gives way
    to a later attempt that trained any of its iterations again.

    Raises:
        NotFoundError: code ``attempt_not_found``.

    """
    if attempt is not None:
        segments(tx, job.number, attempt)  # raises when there is none
    shown = shown_epochs(tx, job.number, attempt)
    if not shown:
        return [], None
    c = epoch_metrics.c
    best = tx.execute(select(func.max(c.epoch)).where(is_shown(shown), c.is_best)).scalar_one()
    rows = [replace(row, is_best=row.epoch == best) for row in _epoch_rows(tx, shown, after, limit + 1)]
    return rows[:limit], rows[limit - 1].epoch if len(rows) > limit else None


def epochs_as_recorded(tx: Transaction, job: JobRow, *, after: int, limit: int) -> list[EpochRow]:
    """Read epochs of the curve without looking at all others: ``is_best`` says that none was better until then."""
    shown = shown_epochs(tx, job.number)
    return _epoch_rows(tx, shown, after, limit) if shown else []


def _epoch_rows(
    tx: Transaction, shown: Sequence[tuple[int, int, int]], after: int, limit: int
) -> list[EpochRow]:
    c = epoch_metrics.c
    query = select(*c).where(is_shown(shown), c.epoch > min(after, NO_EPOCH)).order_by(c.epoch).limit(limit)
    return [EpochRow(*row) for row in tx.execute(query)]
