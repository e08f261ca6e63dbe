"""Which directory of artifacts the service reads: iterations leave the database for that one, and for no other.

A worker on another machine may have a directory of its own under the same path, through a disk that was not mounted,
say. What it archived there nobody could read any more. So the directory has a mark, a file with a random value, and the
database knows the mark of the one that the API was last started with.
"""

import logging
import secrets
from pathlib import Path
from typing import Final

from epochd.store import artifacts
from epochd.store.database import Database, Transaction

log = logging.getLogger("epochd.jobs")

MARK: Final = ".epochd"
"""The file that holds the mark."""


def claim(db: Database, artifacts_dir: Path) -> None:
    """Note that the API reads this directory; it is marked when it is not yet.

    Where that cannot be done nothing is archived, and all else works.
    """
    try:
        mark = _read(artifacts_dir) or _make(artifacts_dir)
    except OSError as error:
        log.warning("%s could not be marked, so no iterations move there: %s", artifacts_dir, error)
        return
    with db.write() as tx:
        before = artifacts.directory(tx)
        if before != mark:
            artifacts.set_directory(tx, mark)
    if before not in {None, mark}:
        log.warning("%s is another directory of artifacts than the one before", artifacts_dir)


def is_claimed(tx: Transaction, artifacts_dir: Path) -> bool:
    """Tell whether this is the directory that the API reads."""
    try:
        mark = _read(artifacts_dir)
    except OSError:
        return False
    return mark is not None and mark == artifacts.directory(tx)


def _read(artifacts_dir: Path) -> str | None:
    try:
        return (artifacts_dir / MARK).read_text(errors="replace").strip() or None
    except FileNotFoundError:
        return None


def _make(artifacts_dir: Path) -> str:
    mark = secrets.token_hex(16)
    artifacts_dir.mkdir(parents=True, exist_ok=True)
    unfinished = artifacts_dir / f"{MARK}-{mark}"
    unfinished.write_text(f"{mark}\n")
    unfinished.replace(artifacts_dir / MARK)
    return mark
