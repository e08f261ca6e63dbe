"""Folders for what is on its way in, each gone with the request that made it, however that ends.

Its maker, and the process that reads the file, hold a lock on it; what nobody holds belonged to a process that was
killed, and ``sweep`` takes it away.
"""

import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A folder; ``lock`` is the descriptor that keeps it."""

    path: Path
    lock: int

    @property
    def file(self) -> Path:
        """Where an uploaded file is written."""
        return self.path / "upload"

    def remove(self) -> None:
        """Take it away with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def make(parent: Path) -> Incoming:
    """Make a folder below ``parent``, and lock it. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    begins = _lock(parent)  # nobody takes a folder away before it is locked
    try:
        path = Path(tempfile.mkdtemp(dir=parent))
        return Incoming(path, _lock(path))
    finally:
        os.close(begins)


def sweep(parent: Path) -> None:
    """Take away the folders that nobody holds."""
    if not parent.is_dir():
        return
    begins = _lock(parent)
    try:
        for path in [one for one in parent.iterdir() if one.is_dir()]:
            if _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(begins)


def _lock(folder: Path, how: int = fcntl.LOCK_EX) -> int:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _is_abandoned(folder: Path) -> bool:
    try:
        os.close(_lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except OSError:  # it is held, or gone
        return False
    return True
