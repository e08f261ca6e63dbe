"""Which events an attempt adds to its job's log: those of what it trains again are there already."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from epochd.store import amendments, events, jobs, metrics
from epochd.store.database import Transaction
from epochd.store.events import NewEvent
from epochd.store.metrics import EpochRow, NewEpoch
from epochd.training.events import AmendmentApplied


class _Announcement(NamedTuple):
    """An event; ``epoch`` names the epoch, and ``amendment`` the amendment, that it tells of."""

    event: NewEvent
    epoch: int | None = None
    amendment: AmendmentApplied | None = None


class Announcements:
    """The events of an attempt until they are committed.

    An epoch that comes out as when it was last announced, and an amendment that took effect before, is not announced
    again. What was announced is what the attempts ``earlier`` (numbers, ascending) have recorded: also what is no part
    of the curve any more, because one of them resumed before it and came less far.
    """

    def __init__(self, job_number: int, earlier: Sequence[int]) -> None:
        self._job_number = job_number
        self._newest_first = list(reversed(earlier))
        self._waiting: list[_Announcement] = []

    def add(self, kind: str, data: Any, iteration: int, *, epoch: int | None = None) -> None:
        """Announce something that happened after ``iteration``; with ``epoch``, unless that one is a repetition.

        ``data`` is a dict, or a dataclass that reads as one.
        """
        self._waiting.append(_Announcement(NewEvent(kind, data, iteration), epoch))

    def add_amendment(self, applied: AmendmentApplied, changes: dict[str, Any]) -> None:
        """Announce that an amendment took effect, unless it had before."""
        data = {"changes": changes, "epoch": applied.epoch, "iteration": applied.iteration}
        event = NewEvent("spec.amended", data, applied.iteration)
        self._waiting.append(_Announcement(event, amendment=applied))

    def write(self, tx: Transaction, epochs: Sequence[NewEpoch]) -> None:
        """Add the events to the log; ``epochs`` are those that they tell of."""
        known = self._repeated(tx, epochs)
        new = [
            event
            for event, epoch, applied in self._waiting
            if epoch not in known and self._is_news(tx, applied)
        ]
        events.append_many(tx, self._job_number, new)

    def written(self) -> None:
        """Forget what has been committed."""
        self._waiting = []

    def _is_news(self, tx: Transaction, applied: AmendmentApplied | None) -> bool:
        if applied is None:
            return True
        return amendments.applied(tx, self._job_number, applied.number, applied.epoch, applied.iteration)

    def _repeated(self, tx: Transaction, new: Sequence[NewEpoch]) -> set[int]:
        if not (new and self._newest_first):
            return set()
        before = self._announced(tx, new)
        return {one.epoch for one in new if one.epoch in before and _is_same(one, before[one.epoch])}

    def _announced(self, tx: Transaction, new: Sequence[NewEpoch]) -> dict[int, EpochRow]:
        job = jobs.by_number(tx, self._job_number)
        assert job is not None, "an attempt goes with its job"
        found: dict[int, EpochRow] = {}
        for attempt in list(self._newest_first):
            rows, _ = metrics.epochs(tx, job, after=new[0].epoch - 1, limit=len(new), attempt=attempt)
            found = {row.epoch: row for row in rows} | found
            if not rows:  # it came less far, and this attempt comes ever farther
                self._newest_first.remove(attempt)
        return found


def _is_same(new: NewEpoch, row: EpochRow) -> bool:
    return (new.metrics, new.learning_rate) == (row.metrics, row.learning_rate)
