"""A directory of event files that TensorBoard reads: a run a job.

What was written before a crash is read back when a run is opened again, and goes on in a file of its own, named so that
readers take it after the others. So nothing is there twice, and a torn end of an older file hides nothing.
"""

import errno
import json
import os
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from epochd.errors import MirrorAwayError, MirrorRefusedError
from epochd.mirror import eventfile
from epochd.mirror.targets import Series, parameters
from epochd.store.jobs import JobRow

SPEC_TAG = "job/text_summary"
RESULT_TAG = "result/text_summary"
START_TAG = "_hparams_/session_start_info"
END_TAG = "_hparams_/session_end_info"
_ALL_OF_THEM = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EROFS,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
    }
)
"""What is not about one directory: the disk, or the files that a process may have open."""
_FILE = re.compile(r"^events\.out\.tfevents\.([0-9]{1,18})\.")


class TensorBoard:
    """Writes below ``directory``, which must be there: one that is not is taken for a disk that is away."""

    name = "tensorboard"
    rows = 10_000

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(
        self,
        job: JobRow,
        run: str | None,
        *,
        key: str,
        replaces: str | None = None,  # noqa: ARG002 - it cannot be said
    ) -> "TensorBoardRun":
        """Open a run's directory, or make it; it is called after the job's name and the key."""
        path = self._path(job, run, key)
        try:
            return TensorBoardRun(path)
        except OSError as error:
            raise _trouble(path, error) from error

    def _path(self, job: JobRow, run: str | None, key: str) -> Path:
        try:
            if not self._directory.is_dir():
                raise MirrorAwayError(f"the directory {self._directory} is not there")
            if run is not None and not (self._directory / run).is_dir():
                raise MirrorRefusedError(f"the directory {self._directory / run} was removed")
            path = self._directory / (run or self.find(key) or _directory_name(job, key))
            path.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise MirrorRefusedError(f"{error.filename} is there, and is no directory") from error
        except OSError as error:
            raise MirrorAwayError(_cannot_write(self._directory, error)) from error
        return path

    def close(self) -> None:
        """There is nothing to give back."""

    def replace(self, run: str, by: Path) -> None:
        """Put the event files of the directory ``by`` in the place of a run's; nothing else there is touched."""
        path = self._directory / run
        try:
            path.mkdir(exist_ok=True)
            old = {file.name for file in path.iterdir() if _FILE.match(file.name)}
            new = {file.name for file in by.iterdir()}
            for name in new:
                (by / name).replace(path / name)
            for name in old - new:
                (path / name).unlink()
        except OSError as error:
            raise _trouble(path, error) from error

    def find(self, key: str) -> str | None:
        """Give the name of the run with this key, None when there is none."""
        names = (path.name for path in self._directory.iterdir() if not path.name.startswith("."))
        return next((name for name in names if name.endswith(key)), None)


class TensorBoardRun:
    """One run's directory, and the file in it that is written now, begun with the first thing to be written."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.known: dict[str, int] = {}
        self._path = path
        self._file: int | None = None
        self._size = 0
        for file in path.iterdir():
            if _FILE.match(file.name):
                for tag, step in eventfile.newest_steps(file).items():
                    self.known[tag] = max(self.known.get(tag, 0), step)
        self._texts = dict(self.known)

    def log(self, series: Sequence[Series]) -> None:
        """Write values, and wait for the disk."""
        self._write(b"".join(eventfile.scalars(one) for one in series))

    def describe(self, job: JobRow) -> None:
        """Write the spec and hyperparameters once, and how each attempt that ended the job did so."""
        now, parts = time.time(), []
        if self._is_new(SPEC_TAG, 0):
            spec = f"**{job.name or job.id}** ({job.id})\n\n```json\n{json.dumps(job.spec, indent=2)}\n```"
            parts.append(eventfile.text(SPEC_TAG, 0, now, spec))
        if self._is_new(START_TAG, 0):
            started = (job.started_at or job.created_at).timestamp()
            parts.append(eventfile.session_start(START_TAG, now, started, parameters(job)))
        if job.finished_at is not None and self._is_new(RESULT_TAG, job.attempt):
            parts.append(eventfile.text(RESULT_TAG, job.attempt, now, _result(job)))
        if job.status == "succeeded" and job.finished_at is not None and self._is_new(END_TAG, 0):
            parts.append(eventfile.session_end(END_TAG, now, job.finished_at.timestamp()))
        self._write(b"".join(parts))

    def give_way(self, run: str) -> None:
        """It cannot be said."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _is_new(self, tag: str, step: int) -> bool:
        if self._texts.get(tag, -1) >= step:
            return False
        self._texts[tag] = step
        return True

    def _write(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._file is None:
                self._file, data = self._begin(), eventfile.version(time.time()) + data
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
            self._size += len(data)
        except OSError as error:
            self._forget()
            raise _trouble(self._path, error) from error

    def _begin(self) -> int:
        numbers = [int(found[1]) for file in self._path.iterdir() if (found := _FILE.match(file.name))]
        number = max([int(time.time()), *(number + 1 for number in numbers)])
        self._current = self._path / f"events.out.tfevents.{number:010d}.{socket.gethostname()}.epochd"
        return os.open(self._current, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)

    def _forget(self) -> None:
        """Take back what was half written, so that a full disk is not filled with beginnings."""
        if self._file is None:
            return
        try:
            os.ftruncate(self._file, self._size)
            if self._size == 0:
                self._current.unlink()
        except OSError:
            pass  # readers stop at the torn record, and what follows goes to another file
        self.close()


def _directory_name(job: JobRow, key: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", job.name or "").strip("-.")[:60]
    return f"{slug}-{key}" if slug else key


def _result(job: JobRow) -> str:
    error = f"\n\n{job.error['code']}: {job.error['message']}" if job.error else ""
    return f"**{job.status}**, {job.stop_reason}, after {job.epoch} epochs{error}"


def _trouble(path: Path, error: OSError) -> MirrorAwayError | MirrorRefusedError:
    """Tell what is wrong with one run's directory from what is wrong with all."""
    all_of_them = error.errno in _ALL_OF_THEM or not path.parent.is_dir()
    return (MirrorAwayError if all_of_them else MirrorRefusedError)(_cannot_write(path, error))


def _cannot_write(path: Path, error: OSError) -> str:
    return f"cannot write to {path}: {error.strerror or error}"
