"""A caller removes a finished job and all that it recorded."""

import shutil
from pathlib import Path

from epochd.errors import ConflictError
from epochd.jobs import warm_start
from epochd.jobs.lifecycle import is_done
from epochd.store import jobs
from epochd.store.database import Database


def delete(db: Database, job_id: str, artifacts_dir: Path, checkpoints_dir: Path) -> None:
    """Remove a finished job: its rows, then its files.

    Rows go first: files without rows can be swept up later, rows without files would promise what is not there.
    Raises ``NotFoundError``, and ``ConflictError`` while the job is not done (``job_not_done``), or one that starts
    from it is not (``job_in_use``).
    """
    with db.write() as tx:
        row = jobs.get(tx, job_id, lock=True)
        if not is_done(row.status):
            message = f"{job_id} is {row.status}; cancel it first, then delete it once it is done."
            raise ConflictError(message, code="job_not_done")
        warm_start.require_unneeded(tx, job_id)
        jobs.delete(tx, job_id)
    for directory in (artifacts_dir, checkpoints_dir):
        shutil.rmtree(directory / job_id, ignore_errors=True)
