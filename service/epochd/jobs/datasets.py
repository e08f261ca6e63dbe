"""Data sets that callers bring: stored once their arrays are complete, and removed when no job needs them.

The arrays of a data set lie in a folder that is named by what is in it, so data sets with the same contents share one.
A folder counts if a row names it. Rows and folders change together under a lock, a file beside the folders: nobody
moves a folder to where somebody else is about to remove one. What a process leaves that was killed in between is a
folder without a row, which ``sweep`` takes away.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ulid import ULID

from epochd.datasets import catalogue
from epochd.errors import ConflictError, DuplicateKeyError, IdempotencyKeyReusedError
from epochd.jobs.lifecycle import DONE
from epochd.jobs.use import ID_PREFIX
from epochd.store import datasets, measurements
from epochd.store.database import Database, Transaction
from epochd.store.datasets import DatasetRow, NewDataset

log = logging.getLogger("epochd.jobs")

INCOMING: Final = "incoming"
"""The folder for what is not stored yet, beside those of the data sets."""
_LOCK: Final = ".lock"
_NAMED_USERS: Final = 3


@dataclass(frozen=True, slots=True)
class Arrived:
    """A data set that was read into ``folder``, as ``datasets.ingest.Ingested`` has it; ``source`` is what came."""

    name: str
    folder: Path
    digest: str
    bytes: int
    info: dict[str, Any]
    source: dict[str, Any]
    preview: dict[str, Any]
    notes: list[dict[str, str]]
    idempotency_key: str | None
    request_digest: str


@dataclass(frozen=True, slots=True)
class Registered:
    """A stored data set; ``created`` is False when the Idempotency-Key had created it before."""

    row: DatasetRow
    created: bool


def check_new(db: Database, name: str, key: str | None, digest: str) -> Registered | None:
    """Tell, before the work, what would come of it: the data set that the same request had created, or None.

    Raises ``IdempotencyKeyReusedError``, and ``ConflictError`` when the name is taken.
    """
    with db.read() as tx:
        found = _replay(tx, key, digest)
        if found is None:
            _refuse_taken(tx, name)
    return found


def register(db: Database, datasets_dir: Path, arrived: Arrived) -> Registered:
    """Store a data set and move its folder to its place, once for each idempotency key.

    Raises ``ConflictError`` (``dataset_name_taken``), ``IdempotencyKeyReusedError`` and OSError: then nothing is
    stored.
    """
    with _locked(datasets_dir):
        try:
            with db.write() as tx:
                return _replay(tx, arrived.idempotency_key, arrived.request_digest) or _insert(
                    tx, datasets_dir, arrived
                )
        except DuplicateKeyError:
            # On another machine, say, whose lock is not ours.
            with db.read() as tx:
                found = _replay(tx, arrived.idempotency_key, arrived.request_digest)
            if found is None:
                raise _taken(arrived.name) from None
            return found


def delete(db: Database, datasets_dir: Path, key: str) -> None:
    """Remove a data set by its id or name: its row, then its folder, unless another data set shares it.

    Raises ``NotFoundError``, and ``ConflictError`` while a job or a measurement that is not done needs it
    (``dataset_in_use``) and for a built-in one (``dataset_built_in``).
    """
    if key in catalogue.names():
        raise ConflictError(f"{key} is built in and cannot be removed.", code="dataset_built_in")
    with _locked(datasets_dir):
        with db.write() as tx:
            row = datasets.get(tx, key, lock=True)
            _refuse_used(tx, row)
            datasets.delete(tx, row.number)
            shared = datasets.has_folder(tx, row.folder)
        if not shared:
            shutil.rmtree(datasets_dir / row.folder, ignore_errors=True)


def sweep(db: Database, datasets_dir: Path) -> None:
    """Take away the folders of data sets that were never stored, or were removed: of processes that were killed."""
    if not datasets_dir.is_dir():
        return
    with _locked(datasets_dir):
        with db.read() as tx:
            known = datasets.folders(tx)
        for folder in [path for path in datasets_dir.iterdir() if path.is_dir()]:
            if folder.name not in known and folder.name != INCOMING:
                log.info("removing %s, which no data set names", folder)
                shutil.rmtree(folder, ignore_errors=True)


def folder_name(digest: str, info: dict[str, Any]) -> str:
    """Name a folder by what is in it: the arrays, and what they mean, but not what the data set is called."""
    content = [digest, {name: value for name, value in info.items() if name != "name"}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def _locked(datasets_dir: Path) -> Iterator[None]:
    datasets_dir.mkdir(parents=True, exist_ok=True)
    with (datasets_dir / _LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _insert(tx: Transaction, datasets_dir: Path, arrived: Arrived) -> Registered:
    _refuse_taken(tx, arrived.name)
    folder = folder_name(arrived.digest, arrived.info)
    shared = datasets.has_folder(tx, folder) and (datasets_dir / folder).is_dir()
    row = datasets.insert(
        tx,
        NewDataset(
            id=f"{ID_PREFIX}{ULID()}".lower(),
            name=arrived.name,
            digest=arrived.digest,
            folder=folder,
            bytes=arrived.bytes,
            info=arrived.info,
            source=arrived.source,
            preview=arrived.preview,
            notes=arrived.notes,
            idempotency_key=arrived.idempotency_key,
            request_digest=arrived.request_digest,
        ),
    )
    if not shared:
        _move(arrived.folder, datasets_dir / folder)
    return Registered(row, created=True)


def _move(source: Path, target: Path) -> None:
    if target.is_dir():  # no row names it: somebody was killed on the way, and it may be half of a data set
        shutil.rmtree(target)
    source.rename(target)
    # The row is about to be committed: the folder must be there after a power cut, too.
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replay(tx: Transaction, key: str | None, digest: str) -> Registered | None:
    row = datasets.find_by_idempotency_key(tx, key) if key is not None else None
    if row is None:
        return None
    if row.request_digest != digest:
        message = (
            f"Idempotency-Key {key!r} was used before with another file or other fields; send a new key for a new "
            "data set."
        )
        raise IdempotencyKeyReusedError.because(message)
    return Registered(row, created=False)


def _refuse_taken(tx: Transaction, name: str) -> None:
    if name in catalogue.names() or datasets.find(tx, name) is not None:
        raise _taken(name)


def _taken(name: str) -> ConflictError:
    message = f"There is a data set {name!r} already: send another `name`, or remove that one first."
    return ConflictError(message, code="dataset_name_taken")


def _refuse_used(tx: Transaction, row: DatasetRow) -> None:
    users, count = datasets.users(tx, row.number, tuple(DONE), _NAMED_USERS)
    measuring = measurements.needing(tx, [row.id])
    users, count = [*users, *measuring][:_NAMED_USERS], count + len(measuring)
    if count:
        more = f" and {count - len(users)} more" if count > len(users) else ""
        message = (
            f"{row.name} is needed by {', '.join(users)}{more}, which {'is' if count == 1 else 'are'} not done; wait, "
            "or cancel first."
        )
        raise ConflictError(message, code="dataset_in_use")
