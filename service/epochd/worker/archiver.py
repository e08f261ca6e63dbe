"""Moves the iterations of old jobs out of the database, gently."""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from epochd.errors import DatabaseUnavailableError, ServiceUnavailableError
from epochd.jobs import archive, directory
from epochd.jobs.archive import UNFINISHED, RefusedError, StoppedError
from epochd.jobs.lifecycle import DONE
from epochd.store import retention
from epochd.store.database import Database

log = logging.getLogger("epochd.worker")

_DONE = sorted(DONE)


class Archiver:
    """Archives the jobs that ended more than ``keep_days`` ago; none, when that is None."""

    def __init__(
        self, db: Database, artifacts_dir: Path, keep_days: float | None, stopping: threading.Event
    ) -> None:
        self._db = db
        self._artifacts_dir = artifacts_dir
        self._keep_seconds = None if keep_days is None else timedelta(days=keep_days).total_seconds()
        self._stopping = stopping
        self._refused: set[int] = set()

    def run(self, seconds: float) -> None:
        """Remove what was left behind, then archive what is due, beginning no job after so many seconds.

        Raises:
            DatabaseUnavailableError: then what is done so far is done.

        """
        if self._keep_seconds is None and not (self._artifacts_dir / UNFINISHED).exists():
            return  # nothing was ever archived here
        deadline = time.monotonic() + seconds
        with self._db.read() as tx:
            is_claimed = directory.is_claimed(tx, self._artifacts_dir)
        if not is_claimed:
            log.warning(
                "%s is not where the API reads artifacts: no iterations move there", self._artifacts_dir
            )
            return
        with _turn(self._artifacts_dir) as mine:
            if not mine:
                return
            archive.clear(self._db, self._artifacts_dir)
            archive.clear_blocks(self._db, self._stopping.wait)
            if self._keep_seconds is not None:
                self._archive_all(self._keep_seconds, deadline)

    def _archive_all(self, keep_seconds: float, deadline: float) -> None:
        for number in self._due(keep_seconds):
            if time.monotonic() >= deadline or self._stopping.is_set():
                return
            began = time.monotonic()
            if number not in self._refused and self._is_due(number, keep_seconds):
                self._archive(number)
                self._stopping.wait(time.monotonic() - began)  # half of the time is for others

    def _due(self, keep_seconds: float) -> Iterator[int]:
        """Give the numbers of all jobs that are to be archived, or were when they were listed."""
        after = 0
        while True:
            with self._db.read() as tx:
                found = retention.due(tx, _DONE, seconds=keep_seconds, after=after)
            if not found:
                return
            yield from found
            after = found[-1]

    def _is_due(self, number: int, keep_seconds: float) -> bool:
        with self._db.read() as tx:
            return directory.is_claimed(tx, self._artifacts_dir) and retention.is_due(
                tx, number, _DONE, seconds=keep_seconds
            )

    def _archive(self, number: int) -> None:
        try:
            if archive.archive_job(self._db, number, self._artifacts_dir, self._stopping.is_set):
                archive.clear_blocks(self._db, self._stopping.wait, job_number=number)
        except StoppedError:
            pass
        except RefusedError as error:
            self._refused.add(number)  # it would be again
            log.warning("%s; they stay in the database", error.message)
        except DatabaseUnavailableError:
            raise
        except (OSError, MemoryError, ServiceUnavailableError) as error:
            log.warning("job number %d could not be archived, which is tried again: %s", number, error)
        except Exception:
            # Whatever it is, it must not keep the other jobs from it, nor come again every second.
            log.exception("job number %d could not be archived; its iterations stay in the database", number)
            self._refused.add(number)


@contextmanager
def _turn(artifacts_dir: Path) -> Iterator[bool]:
    """Tell whether no other worker on this disk is at it. Two would be right as well, only slower."""
    try:
        (artifacts_dir / UNFINISHED).mkdir(parents=True, exist_ok=True)
        handle = os.open(artifacts_dir / UNFINISHED, os.O_RDONLY)
    except OSError as error:
        log.warning("nothing can be archived, which is tried again: %s", error)
        yield False
        return
    try:
        yield _locked(handle)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk that knows no locks
        pass
    return True
