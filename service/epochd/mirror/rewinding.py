"""Whether what was sent of a job is still its curve.

An attempt that was killed is followed by one that resumes before its end, and trains the same numbers again, so that
what was sent stays true. Not so after an amendment, on a device that computes otherwise, or when the job ends before it
has come as far again.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from epochd.store import attempts, curve
from epochd.store.columns import loaded
from epochd.store.curve import Segment
from epochd.store.database import Transaction
from epochd.store.jobs import JobRow
from epochd.store.mirrors import MirrorRow

ITERATIONS_AT_ONCE: Final = 65_536
COMPARED: Final = ["train_loss", "learning_rate", "gradient_norm"]
"""The speed is another each time."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was sent was compared up to ``iteration`` with the curve that ``attempt`` is the newest of.

    ``agrees`` is None as long as that is not known of all of it; ``more`` when it could be compared further now.
    """

    agrees: bool | None
    attempt: int
    iteration: int = 0
    more: bool = False


def compare(tx: Transaction, job: JobRow, row: MirrorRow, known: Comparison | None) -> Comparison:
    """Compare some more of what was sent with what newer attempts made of it; ``known`` is what came of it so far."""
    numbers = {one.id: one.number for one in attempts.of_job(tx, job.number)}
    now = curve.segments(tx, job.number)
    newest = numbers[now[-1].attempt_id] if now else row.attempt
    first = min(
        (one.first for one in now if numbers[one.attempt_id] > row.attempt), default=curve.NO_ITERATION
    )
    if first > row.iteration:
        return Comparison(agrees=True, attempt=newest)
    after = known.iteration if known is not None and known.attempt == newest else first - 1
    end = min(row.iteration, now[-1].last)
    upto = min(end, after + ITERATIONS_AT_ONCE)
    if not _equal(tx, curve.former_segments(tx, job.number, row.attempt), now, after, upto - after):
        return Comparison(agrees=False, attempt=newest)
    if upto < end:
        return Comparison(None, newest, upto, more=True)
    if upto == row.iteration and curve.recorded(tx, job.number).epoch >= row.epoch:
        return Comparison(agrees=True, attempt=newest)
    return Comparison(False if job.finished_at is not None else None, newest, upto)


def _equal(tx: Transaction, before: list[Segment], now: list[Segment], after: int, limit: int) -> bool:
    old, new = (
        loaded(curve.pieces(tx, curve.clip(one, after, limit), COMPARED), ["iteration", *COMPARED], COMPARED)
        for one in (before, now)
    )
    return all(np.array_equal(old[name], new[name], equal_nan=True) for name in old)
