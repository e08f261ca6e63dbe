"""A job that another one is to start from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from epochd.errors import NotFoundError
from epochd.jobs.lifecycle import is_done
from epochd.store import artifacts, jobs
from epochd.store.database import Transaction, archives
from epochd.store.jobs import JobRow

WEIGHTS: Final = "model.safetensors"
DESCRIPTION: Final = "model.json"


@dataclass(frozen=True, slots=True)
class SourceJob:
    """A job that another is to start from, and the folder of its artifacts.

    ``folder`` is None when it kept no weights, or is not done. ``digests`` are those of the artifacts in it by their
    names: SHA-256 in hex.
    """

    row: JobRow
    folder: Path | None
    digests: Mapping[str, str] = field(default_factory=dict)


def find_source(tx: Transaction, job_id: str) -> SourceJob | None:
    """Find a job and its weights; None when there is no such job."""
    try:
        row = jobs.get(tx, job_id)
    except NotFoundError:
        return None
    files = {one.name: one for one in artifacts.of_job(tx, row.number)}
    if not is_done(row.status) or not {WEIGHTS, DESCRIPTION} <= files.keys():
        return SourceJob(row, None)
    digests = {name: one.sha256 for name, one in files.items()}
    return SourceJob(row, (archives(tx) / files[DESCRIPTION].path).parent, digests)
