"""What training measured: iterations in columns, epochs in rows.

Written by the recorder of an attempt, and only while the attempt has not ended. Read as the job's one true
curve (``curve.py``), or as what a single attempt recorded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from sqlalchemy import case, func, select, update

from epochd.store import attempts as attempts_store
from epochd.store.blocks import COLUMNS, Block, cut, dump, epochs_of, load
from epochd.store.curve import NO_EPOCH, Piece, clip, is_shown, pieces, segments, shown_epochs
from epochd.store.database import Transaction
from epochd.store.jobs import JobRow
from epochd.store.rows import upsert
from epochd.store.tables import attempts, epoch_metrics, iteration_blocks

__all__ = [
    "FIELDS",
    "Block",
    "EpochRow",
    "NewEpoch",
    "epochs",
    "iteration_columns",
    "iterations_json",
    "last_iteration",
    "record_epochs",
    "record_iterations",
    "reduced",
]

FIELDS = ("epoch", *COLUMNS)
"""The columns that a reader may choose from; ``iteration`` is always there."""


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


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """An epoch to be stored; ``iteration`` is its last, ``is_best`` says that none was better so far."""

    epoch: int
    iteration: int
    metrics: dict[str, float | None]
    learning_rate: float
    seconds: float
    is_best: bool


def record_iterations(
    tx: Transaction, attempt_id: int, iterations_per_epoch: int, blocks: Sequence[Block]
) -> None:
    """Store blocks, ascending; a block that is stored already is overwritten by the longer one.

    Raises:
        AttemptLostError: when the attempt has ended; nothing is stored.

    """
    if not blocks:
        return
    _advance(tx, attempt_id, blocks[0].first, blocks[-1].last)
    fixed = {"attempt_id": attempt_id, "iterations_per_epoch": iterations_per_epoch}
    upsert(tx, iteration_blocks, [{**fixed, **block.as_row()} for block in blocks])


def _advance(tx: Transaction, attempt_id: int, first: int, last: int) -> None:
    nothing_yet = attempts.c.last_iteration < attempts.c.first_iteration
    statement = update(attempts).where(attempts.c.id == attempt_id, attempts.c.finished_at.is_(None))
    statement = statement.values(
        first_iteration=case((nothing_yet, first), else_=attempts.c.first_iteration),
        last_iteration=case((attempts.c.last_iteration > last, attempts.c.last_iteration), else_=last),
    )
    if tx.execute(statement).rowcount == 0:
        raise attempts_store.lost(attempt_id)


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
    upsert(tx, epoch_metrics, [{**_as_row(one), "attempt_id": attempt_id} for one in new])


def _as_row(epoch: NewEpoch) -> dict[str, Any]:
    # Not dataclasses.asdict: it would copy the metrics deeply, for each of hundreds of epochs a second.
    return {name: getattr(epoch, name) for name in NewEpoch.__dataclass_fields__}


def last_iteration(tx: Transaction, job: JobRow, attempt: int | None = None) -> int:
    """Give the newest recorded iteration of the job's curve; 0 when there is none."""
    curve = segments(tx, job.number, attempt)
    return curve[-1].last if curve else 0


def iterations_json(  # noqa: PLR0913 - what to read is named
    tx: Transaction,
    job: JobRow,
    *,
    after: int = 0,
    limit: int = 1000,
    fields: Sequence[str] | None = None,
    attempt: int | None = None,
) -> bytes:
    """Write the iterations that follow ``after`` as the JSON ``{"columns": {…}, "next": …}``.

    At most ``limit`` of them; ``fields`` of ``FIELDS`` (default: all) beside ``iteration``; of the job's
    curve, or of one attempt. The stored texts are spliced together unread, but for the two blocks that the
    slice cuts.

    Raises:
        NotFoundError: code ``attempt_not_found``.

    """
    curve = segments(tx, job.number, attempt)
    slice_ = clip(curve, after, limit)
    names = _chosen(fields)
    stored = [name for name in names if name in COLUMNS]
    columns = _spliced(pieces(tx, slice_, stored), names, stored)
    more = bool(slice_) and slice_[-1].last < curve[-1].last
    return _answer(columns, slice_[-1].last if more else None)


def _chosen(fields: Sequence[str] | None) -> list[str]:
    return ["iteration", *(name for name in FIELDS if fields is None or name in fields)]


def _spliced(found: Iterable[Piece], names: Sequence[str], stored: Sequence[str]) -> dict[str, bytes]:
    parts: dict[str, list[str]] = {name: [] for name in names}
    for piece in found:
        numbers = np.arange(piece.first, piece.last + 1)
        parts["iteration"].append(_inside(numbers))
        if "epoch" in parts:
            parts["epoch"].append(_inside(epochs_of(numbers, piece.iterations_per_epoch)))
        for name, text in zip(stored, piece.texts, strict=True):
            parts[name].append(text[1:-1] if piece.whole else cut(text, piece.start, piece.stop))
    return {name: f"[{','.join(texts)}]".encode() for name, texts in parts.items()}


def _inside(numbers: npt.NDArray[np.int64]) -> str:
    return dump(numbers)[1:-1].decode()


def _answer(columns: Mapping[str, bytes], following: int | None) -> bytes:
    body = b",".join(b'"%b":%b' % (name.encode(), text) for name, text in columns.items())
    return b'{"columns":{%b},"next":%b}' % (body, orjson.dumps(following))


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
    curve = segments(tx, job.number, attempt)
    slice_ = clip(curve, after, curve[-1].last if curve and limit is None else limit or 0)
    names = _chosen(fields)
    stored = [name for name in names if name in COLUMNS]
    parts = _loaded(pieces(tx, slice_, stored), names, stored)
    return {name: np.concatenate([_EMPTY[name], *arrays]) for name, arrays in parts.items()}


_EMPTY: dict[str, npt.NDArray[Any]] = {
    name: np.empty(0, np.float32 if name in COLUMNS else np.int64) for name in ("iteration", *FIELDS)
}


def _loaded(
    found: Iterable[Piece], names: Sequence[str], stored: Sequence[str]
) -> dict[str, list[npt.NDArray[Any]]]:
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
    for piece in found:
        numbers = np.arange(piece.first, piece.last + 1, dtype=np.int64)
        parts["iteration"].append(numbers)
        if "epoch" in parts:
            parts["epoch"].append(epochs_of(numbers, piece.iterations_per_epoch))
        for name, text in zip(stored, piece.texts, strict=True):
            parts[name].append(load(text)[piece.start : piece.stop])
    return parts


def reduced(
    tx: Transaction,
    job: JobRow,
    points: int,
    *,
    fields: Sequence[str] | None = None,
    attempt: int | None = None,
) -> bytes:
    """Write the whole curve with at most ``points`` (>= 1) iterations, in the shape of ``iterations_json``.

    The iterations are divided into equal buckets; of each the ones of smallest and largest ``train_loss``
    stay, and the first and the newest of all. ``next`` is null.

    Raises:
        NotFoundError: code ``attempt_not_found``.

    """
    curve = segments(tx, job.number, attempt)
    loss = [load(piece.texts[0])[piece.start : piece.stop] for piece in pieces(tx, curve, ["train_loss"])]
    kept = extremes(np.concatenate([_EMPTY["train_loss"], *loss]), points)
    names = _chosen(fields)
    stored = [name for name in names if name in COLUMNS]
    return _answer(_picked(pieces(tx, curve, stored), kept, names, stored), None)


def extremes(values: npt.NDArray[np.float32], points: int) -> npt.NDArray[np.int64]:
    """Choose at most ``points`` positions of a series: first, last, and each bucket's minimum and maximum.

    NaN counts as neither; a bucket of nothing else keeps its first.
    """
    n = len(values)
    if n <= points:
        return np.arange(n)
    if points == 1:
        return np.array([n - 1])
    kept = [0, n - 1]
    for bucket in np.array_split(np.arange(1, n - 1), max(1, (points - 2) // 2))[: (points - 2) // 2]:
        inside = values[bucket]
        kept.append(int(bucket[np.argmin(np.where(np.isnan(inside), np.inf, inside))]))
        kept.append(int(bucket[np.argmax(np.where(np.isnan(inside), -np.inf, inside))]))
    return np.unique(kept)


def _picked(
    found: Iterable[Piece], kept: npt.NDArray[np.int64], names: Sequence[str], stored: Sequence[str]
) -> dict[str, bytes]:
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [_EMPTY[name]] for name in names}
    position = 0
    for piece in found:
        size = piece.stop - piece.start
        inside = kept[np.searchsorted(kept, position) : np.searchsorted(kept, position + size)] - position
        position += size
        if len(inside):
            for name, arrays in _loaded([piece], names, stored).items():
                parts[name].append(arrays[0][inside])
    return {name: dump(np.concatenate(arrays)) for name, arrays in parts.items()}


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
    query = select(*c).where(is_shown(shown), c.epoch > min(after, NO_EPOCH))
    query = query.order_by(c.epoch).limit(limit + 1)
    best = tx.execute(select(func.max(c.epoch)).where(is_shown(shown), c.is_best)).scalar_one()
    rows = [replace(EpochRow(*row), is_best=row.epoch == best) for row in tx.execute(query)]
    return rows[:limit], rows[limit - 1].epoch if len(rows) > limit else None
