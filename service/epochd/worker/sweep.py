"""Removes what nobody will need: checkpoints, weights of earlier attempts, and old iterations from the database."""

import logging
import shutil
import time
from contextlib import suppress
from pathlib import Path

from epochd.errors import DatabaseUnavailableError, NotFoundError
from epochd.jobs.lifecycle import is_done
from epochd.store import artifacts, jobs
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow
from epochd.worker.archiver import Archiver
from epochd.worker.loop import Loop
from epochd.worker.order import Folders

log = logging.getLogger("epochd.worker")

SWEEP_SECONDS = 900.0
MARK = "database"
"""The file in a job's folder that names the database of the job."""


def mark(checkpoints_dir: Path, job_id: str, db: Database) -> None:
    """Note which database a job belongs to, beside its checkpoints.

    A worker that was started on another database by mistake knows none of the jobs here, and must not take them for
    deleted ones.
    """
    with suppress(OSError):  # then its folder is never swept up; whoever saves checkpoints reports the disk
        folder = checkpoints_dir / job_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(db.safe_url)


def discard_if_over(checkpoints_dir: Path, job_id: str, db: Database) -> None:
    """Remove the checkpoints of a job that has succeeded, or that was cancelled so that nothing is kept.

    While the database is away they stay for the next sweep.
    """
    with suppress(DatabaseUnavailableError):
        with db.read() as tx:
            unwanted = _is_unwanted(tx, checkpoints_dir / job_id, db)
        if unwanted:
            _remove(checkpoints_dir / job_id)


def discard_superseded(artifacts_dir: Path, job_id: str, db: Database) -> None:
    """Remove the files of a finished job that none of its artifacts is: an earlier attempt left them.

    While the database is away they stay until the job is deleted.
    """
    with suppress(DatabaseUnavailableError, NotFoundError):
        with db.read() as tx:
            job = jobs.get(tx, job_id)
            kept = {(artifacts_dir / one.path).parent for one in artifacts.of_job(tx, job.number)}
        if is_done(job.status):
            for folder in set(_entries(artifacts_dir / job_id)) - kept:
                if folder.is_dir():  # files hold the iterations of earlier attempts
                    _remove(folder)


def sweep(checkpoints_dir: Path, db: Database) -> None:
    """Do the same for all jobs, and remove the checkpoints of deleted ones.

    Raises:
        DatabaseUnavailableError: then nothing more was removed.

    """
    # Listed first: a job comes before its folder, so each of these that is not found then was deleted.
    for folder in [folder for folder in _entries(checkpoints_dir) if folder.name.startswith("job_")]:
        with db.read() as tx:  # one by one: a job may be retried meanwhile
            unwanted = _is_unwanted(tx, folder, db)
        if unwanted:
            _remove(folder)


class Sweeper(Loop):
    """Sweeps when a worker starts, and from time to time: jobs are deleted and cancelled without a worker, too."""

    def __init__(self, db: Database, folders: Folders, keep_iterations_days: float | None = None) -> None:
        super().__init__("sweeper")
        self._db = db
        self._checkpoints_dir = folders.checkpoints
        self._archiver = Archiver(db, folders.artifacts, keep_iterations_days, self.stopping)

    def tick(self) -> None:
        """Sweep, archive what is due, then rest."""
        following = time.monotonic() + SWEEP_SECONDS
        sweep(self._checkpoints_dir, self._db)
        self._archiver.run(following - time.monotonic())
        self.stopping.wait(max(0.0, following - time.monotonic()))


def _is_unwanted(tx: Transaction, folder: Path, db: Database) -> bool:
    try:
        return _is_over(jobs.get(tx, folder.name))
    except NotFoundError:
        return _marked(folder) == db.safe_url


def _is_over(row: JobRow) -> bool:
    # Failed and cancelled ones may be retried.
    return row.status == "succeeded" or (row.status == "cancelled" and row.cancel_keep == "nothing")


def _marked(folder: Path) -> str | None:
    try:
        return (folder / MARK).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError:
        log.exception("%s could not be removed", folder)
