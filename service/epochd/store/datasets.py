"""The data sets that callers brought: what is known of them; their arrays lie in folders outside the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select

from epochd.errors import NotFoundError
from epochd.store.cursors import number_of
from epochd.store.database import Transaction
from epochd.store.tables import datasets, job_datasets, jobs
from epochd.store.types import now


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A data set to be stored; ``info`` is ``DatasetInfo.as_dict()``, ``folder`` its folder's name."""

    id: str
    name: str
    digest: str
    folder: str
    bytes: int
    info: Mapping[str, Any]
    source: Mapping[str, Any]
    preview: Mapping[str, Any]
    notes: Sequence[Mapping[str, str]]
    idempotency_key: str | None
    request_digest: str


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A data set as it is stored: the columns of ``tables.datasets``, in their order."""

    number: int
    id: str
    name: str
    digest: str
    folder: str
    bytes: int
    info: dict[str, Any]
    source: dict[str, Any]
    preview: dict[str, Any]
    notes: list[dict[str, str]]
    idempotency_key: str | None
    request_digest: str
    created_at: datetime


_ALL = select(*datasets.c)


def insert(tx: Transaction, new: NewDataset) -> DatasetRow:
    """Store a data set.

    Raises (at the latest at the end of ``Database.write()``):
        DuplicateKeyError: when its name or idempotency key is stored already.

    """
    values = {name: getattr(new, name) for name in NewDataset.__dataclass_fields__}
    row = tx.execute(datasets.insert().values(**values, created_at=now()).returning(*datasets.c)).one()
    return DatasetRow(*row)


def find(tx: Transaction, key: str, *, lock: bool = False) -> DatasetRow | None:
    """Find a data set by its id or name; with ``lock`` nobody begins to use it before the transaction ends.

    No name looks like an id.
    """
    query = _ALL.where((datasets.c.id == key) | (datasets.c.name == key))
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else DatasetRow(*row)


def get(tx: Transaction, key: str, *, lock: bool = False) -> DatasetRow:
    """Read a data set, as ``find``.

    Raises:
        NotFoundError: code ``dataset_not_found``.

    """
    row = find(tx, key, lock=lock)
    if row is None:
        raise NotFoundError(f"there is no data set {key!r}", code="dataset_not_found")
    return row


def find_by_idempotency_key(tx: Transaction, key: str) -> DatasetRow | None:
    """Find the data set that was created with this Idempotency-Key."""
    row = tx.execute(_ALL.where(datasets.c.idempotency_key == key)).one_or_none()
    return None if row is None else DatasetRow(*row)


def names(tx: Transaction, limit: int = 1000) -> list[str]:
    """List names, the newest first."""
    query = select(datasets.c.name).order_by(datasets.c.number.desc()).limit(limit)
    return list(tx.execute(query).scalars())


def page(tx: Transaction, *, limit: int, after: str | None = None) -> tuple[list[DatasetRow], str | None]:
    """Read a page of data sets, newest first, and the cursor of the next page (None: that was the last).

    Raises:
        InvalidRequestError: when ``after`` is no cursor that came from here.

    """
    query = _ALL if after is None else _ALL.where(datasets.c.number < number_of(after))
    rows = [DatasetRow(*row) for row in tx.execute(query.order_by(datasets.c.number.desc()).limit(limit + 1))]
    return rows[:limit], str(rows[limit - 1].number) if len(rows) > limit else None


def delete(tx: Transaction, number: int) -> None:
    """Remove a data set; whether it may go is for the caller to say."""
    tx.execute(datasets.delete().where(datasets.c.number == number))


def folders(tx: Transaction) -> set[str]:
    """List the folders that data sets lie in."""
    return set(tx.execute(select(datasets.c.folder).distinct()).scalars())


def has_folder(tx: Transaction, folder: str) -> bool:
    """Tell whether a data set lies in this folder."""
    return _exists(tx, datasets.c.folder == folder)


def _exists(tx: Transaction, condition: ColumnElement[bool]) -> bool:
    return tx.execute(select(select(datasets.c.number).where(condition).exists())).scalar_one()


def hold(tx: Transaction, ids: Sequence[str]) -> dict[str, int]:
    """Keep these data sets from being removed before the transaction ends; give the numbers of those that are there."""
    # In one order, so that two who hold the same ones never wait for each other.
    query = select(datasets.c.id, datasets.c.number).where(datasets.c.id.in_(ids)).order_by(datasets.c.number)
    return {row.id: row.number for row in tx.execute(query.with_for_update(key_share=True, read=True))}


def use(tx: Transaction, job_number: int, dataset_numbers: Sequence[int]) -> None:
    """Note which data sets a job needs; they are held."""
    rows = [{"job_number": job_number, "dataset_number": number} for number in dict.fromkeys(dataset_numbers)]
    if rows:
        tx.execute(job_datasets.insert(), rows)


def users(tx: Transaction, number: int, done: Sequence[str], limit: int) -> tuple[list[str], int]:
    """List ids of jobs that need a data set and have none of the statuses ``done``, and tell how many there are."""
    joined = job_datasets.join(jobs, jobs.c.number == job_datasets.c.job_number)
    condition = (job_datasets.c.dataset_number == number) & jobs.c.status.not_in(done)
    found = select(jobs.c.id).select_from(joined).where(condition).order_by(jobs.c.number).limit(limit)
    count = select(func.count()).select_from(joined).where(condition)
    return list(tx.execute(found).scalars()), tx.execute(count).scalar_one()
