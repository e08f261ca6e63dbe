"""Opens the data sets that callers brought, by the ids that resolved specs name them by."""

import json
from collections.abc import Callable
from pathlib import Path

from epochd.datasets.raw import RawData
from epochd.datasets.stored import open_stored
from epochd.errors import DataError
from epochd.store import datasets
from epochd.store.database import Database
from epochd.store.datasets import DatasetRow

OpenDataset = Callable[[str], RawData]
"""Opens a data set by its id. Raises ``DataError`` when it cannot be read."""


def opener(db: Database, folder: Path) -> OpenDataset:
    """Open data sets that lie in ``folder``, where the database says. They are mapped, not read.

    ``DataError`` has the code ``dataset_gone`` for one that was deleted, ``dataset_unreadable`` for files that are not
    what they were.
    """
    return lambda dataset_id: _open(db, folder, dataset_id)


def only_built_in(dataset_id: str) -> RawData:
    """Refuse: for those who have no database."""
    raise DataError(f"There is no data set {dataset_id!r} among the built-in ones.", code="dataset_gone")


def _open(db: Database, folder: Path, dataset_id: str) -> RawData:
    with db.read() as tx:
        row = datasets.find(tx, dataset_id)
    if row is None:
        raise DataError(
            f"The data set {dataset_id!r} was deleted. Upload it again, and submit the job with the new one.",
            code="dataset_gone",
        )
    try:
        raw = open_stored(folder / row.folder)
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise _unreadable(row, f"{type(error).__name__}: {error}") from error
    if raw.digest != row.digest:
        raise _unreadable(row, f"its digest is {raw.digest} instead of {row.digest}")
    return raw


def _unreadable(row: DatasetRow, why: str) -> DataError:
    return DataError(
        f"The files of the data set {row.id!r} are missing or not what they were ({why}). Upload it again, and submit "
        "the job with the new one.",
        code="dataset_unreadable",
    )
