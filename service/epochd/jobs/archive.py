"""The iterations of a job that ended long ago move from the database into its artifact ``metrics.parquet``.

The file is written and proved under a name of its own, and comes to its place. One transaction then makes it count, and
only after that are rows removed. Whoever is killed before leaves a file that nobody refers to, and whoever is killed
afterwards leaves rows that nobody reads; ``clear`` and ``clear_blocks`` remove them.
"""

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from epochd.errors import EpochdError, NotFoundError
from epochd.jobs.lifecycle import is_done
from epochd.jobs.missing_levels import MissingLevels
from epochd.store import archive, artifacts, attempts, curve, jobs, retention
from epochd.store.archive import ARTIFACT, MEDIA_TYPE, Archived, Run
from epochd.store.artifacts import NewArtifact
from epochd.store.attempts import AttemptRow
from epochd.store.blocks import COLUMNS, block_of, load
from epochd.store.curve import Piece, Segment
from epochd.store.database import Database, Transaction
from epochd.store.tables import BLOCK_ITERATIONS

UNFINISHED: Final = ".archiving"
"""The folder among the artifacts in which files are written."""
UNFINISHED_SECONDS: Final = 3600.0
"""A file there that nobody has written to for so long was left by somebody who was killed."""
SUPERSEDED_SECONDS: Final = 60.0
"""Whoever began to read before another file took its place is through after so long."""
BLOCKS_AT_ONCE: Final = 64
BYTES_PER_ITERATION: Final = 40
"""What an iteration takes in the file at most."""
REST_SECONDS: Final = 0.05
"""Between removals, so that others get their turn."""
SPARE_BYTES: Final = 64 * 2**20
"""What archiving leaves free on the disk for those who need it more."""

Stopping = Callable[[], bool]
"""Whether to leave everything as it is, and come back."""


class RefusedError(EpochdError):
    """The iterations of a job cannot be archived: its database holds them otherwise than epochd writes them."""


class StoppedError(EpochdError):
    """Somebody else needs the process, or its end."""


@dataclass(frozen=True, slots=True)
class _Written:
    """A proved file, and the attempts whose iterations are in it; ``name`` is relative to the artifacts."""

    name: str
    unfinished: Path
    attempts: tuple[AttemptRow, ...]
    bytes: int
    sha256: str


def archive_job(
    db: Database, job_number: int, artifacts_dir: Path, stopping: Stopping = lambda: False
) -> bool:
    """Move all iterations of a job that is done into one file. The blocks stay for ``clear_blocks``.

    False, with nothing changed, when the job was retried, deleted or archived by somebody else meanwhile.

    Raises:
        RefusedError: and nothing was changed, as with all these.
        ArchiveUnreadableError: a part of it was archived before, and cannot be read.
        StoppedError: ``stopping`` became true.
        OSError: the disk takes no more.

    """
    with db.read() as tx:
        job = jobs.by_number(tx, job_number)
        recorded = _recorded(tx, job_number)
    if job is None or not is_done(job.status):
        return False
    with _unfinished(artifacts_dir, job.id) as name:
        levels = MissingLevels(db, job_number)
        try:
            written = _Writing(db, job.id, recorded, levels, stopping).write(artifacts_dir / UNFINISHED, name)
        except RefusedError:
            if _is_unchanged(db, job_number, recorded):
                raise
            return False
        levels.store()
        return _commit(db, job_number, written, artifacts_dir)


def _is_unchanged(db: Database, job_number: int, recorded: tuple[AttemptRow, ...]) -> bool:
    with db.read() as tx:
        return _recorded(tx, job_number) == recorded


@contextmanager
def _unfinished(artifacts_dir: Path, job_id: str) -> Iterator[str]:
    """Make room for a new file of a job, and give its name, relative to the artifacts; nothing is left behind."""
    name = f"{job_id}/metrics-{secrets.token_hex(8)}.parquet"
    path = artifacts_dir / UNFINISHED / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield name
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # somebody else may be at it
            path.parent.rmdir()


class _Writing:
    """Writes the iterations of a job into a file, and proves that they are all there.

    The attempts have ended, so that nothing is recorded meanwhile. What they recorded may go while it is read, when
    somebody else archives or deletes the job; then it is not complete, which is an error.
    """

    def __init__(
        self,
        db: Database,
        job_id: str,
        recorded: tuple[AttemptRow, ...],
        levels: MissingLevels,
        stopping: Stopping,
    ) -> None:
        self._db = db
        self._job_id = job_id
        self._recorded = recorded
        self._levels = levels
        self._stopping = stopping

    def write(self, directory: Path, name: str) -> _Written:
        path = directory / name
        _require_room(path.parent, sum(_iterations(row) for row in self._recorded))
        archived = self._archived()
        read = hashlib.blake2b()
        with path.open("w+b") as file:
            archive.write(file, self._job_id, archived, self._runs(archived, read))
            file.flush()
            os.fsync(file.fileno())
            size, sha256 = file.seek(0, os.SEEK_END), _sha256(file)
        self._prove(directory, name, archived, read)
        return _Written(name, path, self._recorded, size, sha256)

    def _archived(self) -> tuple[Archived, ...]:
        found: list[Archived] = []
        at = 0
        for row in self._recorded:
            first = next(iter(self._blocks(row, row.first_iteration, row.first_iteration)), None)
            if first is None:
                raise self._incomplete(row.number)
            bounds = (row.first_iteration, row.last_iteration)
            found.append(Archived(row.id, row.number, *bounds, first.iterations_per_epoch, at))
            at += _iterations(row)
        return tuple(found)

    def _runs(self, archived: Sequence[Archived], digest: hashlib.blake2b) -> Iterator[Run]:
        for row, one in zip(self._recorded, archived, strict=True):
            self._levels.begin(row, one.iterations_per_epoch)
            following = row.first_iteration
            while following <= row.last_iteration:
                self._leave_when_asked()
                last = (block_of(following) + BLOCKS_AT_ONCE) * BLOCK_ITERATIONS
                blocks = self._blocks(row, following, min(last, row.last_iteration))
                for block in blocks:
                    if block.first != following or block.iterations_per_epoch != one.iterations_per_epoch:
                        break
                    _feed(digest, block.first, block.iterations_per_epoch, block.texts)
                    following = block.last + 1
                if not blocks or following != blocks[-1].last + 1:
                    raise self._incomplete(row.number)
                run = _run(row.number, blocks)
                self._levels.add(row.id, [run.values[name] for name in COLUMNS])
                yield run

    def _blocks(self, row: AttemptRow, first: int, last: int) -> list[Piece]:
        with self._db.read() as tx:
            return list(curve.pieces(tx, [Segment(row.id, first, last, row.archive)], COLUMNS))

    def _prove(self, directory: Path, name: str, archived: Sequence[Archived], read: hashlib.blake2b) -> None:
        """Read the file as requests will."""
        found = hashlib.blake2b()
        for one in archived:
            numbers = range(block_of(one.first), block_of(one.last) + 1)
            for first, _, per_epoch, *texts in archive.blocks(directory, name, one.id, numbers, COLUMNS):
                self._leave_when_asked()
                _feed(found, first, per_epoch, texts)
        if found.digest() != read.digest():
            message = f"the iterations of {self._job_id} would read otherwise in a file than in the database"
            raise RefusedError(message)

    def _leave_when_asked(self) -> None:
        if self._stopping():
            raise StoppedError(f"{self._job_id} is archived another time")

    def _incomplete(self, attempt: int) -> RefusedError:
        return RefusedError(f"the iterations of attempt {attempt} of {self._job_id} are not all there")


def _run(attempt: int, blocks: Sequence[Piece]) -> Run:
    columns = zip(*(block.texts for block in blocks), strict=True)
    values = {
        name: np.concatenate([load(text) for text in texts])
        for name, texts in zip(COLUMNS, columns, strict=True)
    }
    return Run(attempt, blocks[0].first, blocks[0].iterations_per_epoch, values)


def _feed(digest: hashlib.blake2b, first: int, iterations_per_epoch: int, texts: Iterable[str]) -> None:
    digest.update(f"{first} {iterations_per_epoch} {' '.join(texts)}\n".encode())


def _iterations(row: AttemptRow) -> int:
    return row.last_iteration - row.first_iteration + 1


def _require_room(directory: Path, iterations: int) -> None:
    """Fail before the disk is full, and everybody else's writes with it."""
    if shutil.disk_usage(directory).free < iterations * BYTES_PER_ITERATION + SPARE_BYTES:
        raise OSError(errno.ENOSPC, f"too little space for {iterations} iterations", str(directory))


def _sha256(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # a file is what it takes


def _commit(db: Database, job_number: int, written: _Written, artifacts_dir: Path) -> bool:
    """Make the file count.

    It comes to its place first, whatever time that takes: nobody knows its name yet. When the database fails it stays
    there, since nobody can tell whether the last commit was made; ``clear`` can.
    """
    path = artifacts_dir / written.name
    _put_in_place(written.unfinished, path)
    superseded = _refer_to(db, job_number, written, path)
    if superseded is None:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others' files are there, or it was deleted with the job
            path.parent.rmdir()
        return False
    for name in superseded:
        with suppress(OSError):  # its age counts from now
            os.utime(artifacts_dir / name)
    return True


def _refer_to(db: Database, job_number: int, written: _Written, path: Path) -> set[str] | None:
    """Have the attempts and the artifact of a job be this file, and tell the files that it takes the place of.

    Under the lock of the job's row, which whoever deletes or retries it holds, and whoever clears files away.
    None, with nothing changed, when one of these came first.
    """
    with db.write() as tx:
        job = jobs.by_number(tx, job_number, lock=True)
        if job is None or not is_done(job.status) or written.attempts != _recorded(tx, job_number):
            return None
        if not path.exists():
            return None
        superseded = retention.referenced(tx, job.id)
        retention.archive(tx, [row.id for row in written.attempts], written.name)
        new = NewArtifact(ARTIFACT, written.name, MEDIA_TYPE, written.bytes, written.sha256)
        artifacts.insert_many(tx, job_number, [new])
        return superseded


def _recorded(tx: Transaction, job_number: int) -> tuple[AttemptRow, ...]:
    rows = attempts.of_job(tx, job_number)
    return tuple(row for row in rows if row.last_iteration >= row.first_iteration)


def _put_in_place(unfinished: Path, path: Path) -> None:
    # Both folders are to know of it before the database does.
    path.parent.mkdir(parents=True, exist_ok=True)
    os.utime(unfinished)  # its age, for those who clear away, counts from now
    unfinished.rename(path)
    for folder in (path.parent, path.parent.parent):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def clear(db: Database, artifacts_dir: Path) -> None:
    """Remove files that nobody refers to: of whoever was killed, and those that a newer one took the place of.

    Those of jobs that this database does not know stay: they may be another's. So does what cannot be removed.
    """
    for path in (artifacts_dir / UNFINISHED).glob("*/*"):
        if _age(path) > UNFINISHED_SECONDS:
            with suppress(OSError):
                path.unlink()
                path.parent.rmdir()
    with db.read() as tx:
        known = retention.referenced(tx)
    for path in artifacts_dir.glob("job_*/metrics-*.parquet"):
        if str(path.relative_to(artifacts_dir)) not in known and _age(path) > SUPERSEDED_SECONDS:
            _remove_unless_referenced(db, artifacts_dir, path)


def _remove_unless_referenced(db: Database, artifacts_dir: Path, path: Path) -> None:
    # Under the lock under which a file comes to its place: it may have been referred to since.
    with suppress(NotFoundError), db.write() as tx:
        job = jobs.get(tx, path.parent.name, lock=True)
        if str(path.relative_to(artifacts_dir)) not in retention.referenced(tx, job.id):
            with suppress(OSError):
                path.unlink()


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def clear_blocks(db: Database, rest: Callable[[float], bool], *, job_number: int | None = None) -> None:
    """Remove the blocks of archived attempts, few at a time: whoever records something waits for each removal.

    Of one job, or of all. ``rest`` is called with the seconds to wait in between, and returns True to leave.
    """
    with db.read() as tx:
        found = retention.archived_blocks(tx, job_number)
    for attempt_id in found:
        left = True
        while left:
            with db.write() as tx:
                left = retention.remove_blocks(tx, attempt_id, BLOCKS_AT_ONCE)
            if rest(REST_SECONDS):
                return
