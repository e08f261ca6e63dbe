"""Measurements of batch sizes: what was asked for, who measures, and what was found so far."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, or_, select, update

from epochd.errors import NotFoundError
from epochd.store.database import Transaction
from epochd.store.tables import measurements
from epochd.store.types import now, seconds_from_now

LOOKED_AT: Final = 100
"""So many of the oldest ones that wait are looked at for one that a worker can do."""
KEEP_SECONDS: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class MeasurementRow:
    """A measurement as it is stored: the columns of ``tables.measurements``, in their order."""

    number: int
    id: str
    status: str
    spec: dict[str, Any]
    train_samples: int
    seconds: float
    requires: str | None
    sizes: list[dict[str, Any]]
    noise_scale: dict[str, Any] | None
    error: dict[str, Any] | None
    worker: str | None
    device: str | None
    taken: int
    lease_expires_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_done(self) -> bool:
        """Whether nothing more will be found."""
        return self.finished_at is not None


def insert(  # noqa: PLR0913 - each is a column
    tx: Transaction,
    *,
    id: str,  # noqa: A002 - the column's name
    spec: Mapping[str, Any],
    train_samples: int,
    seconds: float,
    requires: str | None,
) -> MeasurementRow:
    """Queue a measurement; those that ended long ago are forgotten."""
    c = measurements.c
    tx.execute(measurements.delete().where(c.finished_at < seconds_from_now(-KEEP_SECONDS)))
    given = {"spec": spec, "train_samples": train_samples, "seconds": seconds, "requires": requires}
    values = {"id": id, "status": "queued", "sizes": [], "taken": 0, "created_at": now(), **given}
    return MeasurementRow(*tx.execute(measurements.insert().values(**values).returning(*c)).one())


def get(tx: Transaction, measurement_id: str) -> MeasurementRow:
    """Read one.

    Raises:
        NotFoundError: code ``measurement_not_found``.

    """
    row = tx.execute(select(*measurements.c).where(measurements.c.id == measurement_id)).one_or_none()
    if row is None:
        raise NotFoundError(
            f"There is no measurement {measurement_id!r}; they are kept for a week.",
            code="measurement_not_found",
        )
    return MeasurementRow(*row)


def waiting(tx: Transaction) -> list[MeasurementRow]:
    """Find those that wait for a worker, or whose worker is gone, the oldest first."""
    query = select(*measurements.c).where(_is_free()).order_by(measurements.c.number).limit(LOOKED_AT)
    return [MeasurementRow(*row) for row in tx.execute(query)]


def _is_free() -> ColumnElement[bool]:
    c = measurements.c
    return or_(c.status == "queued", and_(c.status == "running", c.lease_expires_at < now()))


def running(tx: Transaction) -> list[MeasurementRow]:
    """Read those that a worker makes now, the oldest first."""
    query = select(*measurements.c).where(measurements.c.status == "running", ~_is_free())
    return [MeasurementRow(*row) for row in tx.execute(query.order_by(measurements.c.number))]


def take(
    tx: Transaction, row: MeasurementRow, *, worker: str, device: str, lease_seconds: float
) -> MeasurementRow | None:
    """Begin one that waits; None when somebody else was first. What an earlier worker had found is measured anew."""
    mine = and_(measurements.c.number == row.number, measurements.c.taken == row.taken, _is_free())
    values = {"status": "running", "worker": worker, "device": device, "taken": row.taken + 1, "sizes": []}
    begun = {"started_at": now(), "lease_expires_at": seconds_from_now(lease_seconds), "noise_scale": None}
    statement = update(measurements).where(mine).values(**values, **begun).returning(*measurements.c)
    found = tx.execute(statement).one_or_none()
    return None if found is None else MeasurementRow(*found)


def record(
    tx: Transaction,
    row: MeasurementRow,
    *,
    lease_seconds: float,
    sizes: Sequence[Mapping[str, Any]],
    noise_scale: Mapping[str, Any] | None = None,
) -> bool:
    """Note what was found so far, and renew the lease; False when it is no longer yours."""
    values = {"sizes": list(sizes), "noise_scale": noise_scale}
    return _update(tx, row, {**values, "lease_expires_at": seconds_from_now(lease_seconds)})


def finish(tx: Transaction, row: MeasurementRow, error: Mapping[str, Any] | None = None) -> bool:
    """End it: with an error it has failed. False when it is no longer yours."""
    status = "succeeded" if error is None else "failed"
    return _update(
        tx, row, {"status": status, "error": error, "finished_at": now(), "lease_expires_at": None}
    )


def give_back(tx: Transaction, row: MeasurementRow) -> bool:
    """Let another worker begin it, as if this one had not; False when it is no longer yours."""
    return _update(tx, row, {"status": "queued", "lease_expires_at": None, "started_at": None, "sizes": []})


def _update(tx: Transaction, row: MeasurementRow, values: Mapping[str, Any]) -> bool:
    c = measurements.c
    mine = and_(c.number == row.number, c.taken == row.taken, c.status == "running")
    return tx.execute(update(measurements).where(mine).values(**values)).rowcount == 1


def needing(tx: Transaction, dataset_ids: Collection[str]) -> list[str]:
    """Find the measurements that are not done and read one of these data sets."""
    query = select(measurements.c.id, measurements.c.spec).where(
        measurements.c.status.in_(("queued", "running"))
    )
    return [
        str(one)
        for one, spec in tx.execute(query)
        if {
            spec["dataset"] if isinstance(spec["dataset"], str) else "",
            (spec["validation"] or {}).get("dataset"),
        }
        & set(dataset_ids)
    ]
