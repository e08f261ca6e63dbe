"""Files that survive a crash: complete on disk before they get their name, and errors of the disk as ours."""

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from epochd.errors import InfrastructureError

log = logging.getLogger("epochd.training")

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NEW_FOLDERS = 3
"""A file's folder and its parents may be as new as the file: those of the attempt, of the job, and of all jobs."""

Write = Callable[[BinaryIO], None]
"""Writes the whole content of one file."""


def write_files(folder: Path, contents: Mapping[str, Write], *, what: str) -> None:
    """Write files into ``folder``, which is made if need be, replacing those of the same names.

    All are complete on disk before the first gets its name; they get their names in the order of ``contents``.
    Raises InfrastructureError as ``disk_errors`` does, leaving nothing half-written.
    """
    with disk_errors(folder, what):
        folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(folder, contents)


def temporary_name(name: str) -> str:
    """Name a file while it is being written by this process; one that is left over belongs to nobody."""
    return f".{name}.{os.getpid()}.tmp"


@contextlib.contextmanager
def disk_errors(folder: Path, what: str) -> Iterator[None]:
    """Turn OSError into InfrastructureError ``disk_full`` or ``data_dir_not_writable``.

    ``what`` was being written into ``folder``; the path goes into the log, but not into the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            message = (
                "The disk that holds the worker's data directory is full; free some space, then try again."
            )
            raise InfrastructureError(message, code="disk_full") from error
        log.exception("%s could not be written to %s", what, folder)
        message = f"The worker could not write {what} into its data directory: {error.strerror}."
        raise InfrastructureError(message, code="data_dir_not_writable") from error


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_atomically(folder: Path, contents: Mapping[str, Write]) -> None:
    temporary = {name: folder / temporary_name(name) for name in contents}
    try:
        for name, write in contents.items():
            _write_durably(temporary[name], write)
        for name, path in temporary.items():
            path.replace(folder / name)
        for changed in (folder, *list(folder.parents)[:NEW_FOLDERS]):
            sync_folder(changed)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def _write_durably(path: Path, write: Write) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
