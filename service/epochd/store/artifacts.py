"""The artifacts: files that a job left, kept outside the database."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import delete, select

from epochd.errors import NotFoundError
from epochd.store.database import Transaction
from epochd.store.rows import upsert
from epochd.store.tables import artifacts, directories
from epochd.store.types import now

_ARTIFACTS = "artifacts"


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """A file that was written; ``path`` is relative to the artifacts directory, ``sha256`` in hexadecimal."""

    name: str
    path: str
    media_type: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """An artifact as it is stored: the columns of ``tables.artifacts``, in their order."""

    job_number: int
    name: str
    path: str
    media_type: str
    bytes: int
    sha256: str
    created_at: datetime


def insert_many(tx: Transaction, job_number: int, new: Sequence[NewArtifact]) -> None:
    """Store the artifacts of a job; one of the same name is replaced."""
    moment = tx.execute(select(now())).scalar_one()
    upsert(tx, artifacts, [{"job_number": job_number, **asdict(one), "created_at": moment} for one in new])


def remove(tx: Transaction, job_number: int) -> None:
    """Forget the artifacts of a job; their files stay."""
    tx.execute(delete(artifacts).where(artifacts.c.job_number == job_number))


def directory(tx: Transaction) -> str | None:
    """Tell the mark of the directory of artifacts that the API reads; None: it was never started."""
    return tx.execute(select(directories.c.mark).where(directories.c.name == _ARTIFACTS)).scalar_one_or_none()


def set_directory(tx: Transaction, mark: str) -> None:
    """Store the mark of the directory of artifacts."""
    upsert(tx, directories, [{"name": _ARTIFACTS, "mark": mark}])


def of_job(tx: Transaction, job_number: int) -> list[ArtifactRow]:
    """Read the artifacts of a job by name."""
    query = select(*artifacts.c).where(artifacts.c.job_number == job_number).order_by(artifacts.c.name)
    return [ArtifactRow(*row) for row in tx.execute(query)]


def get(tx: Transaction, job_number: int, name: str) -> ArtifactRow:
    """Read one artifact of a job.

    Raises:
        NotFoundError: code ``artifact_not_found``.

    """
    query = select(*artifacts.c).where(artifacts.c.job_number == job_number, artifacts.c.name == name)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"the job has no artifact {name!r}", code="artifact_not_found")
    return ArtifactRow(*row)
