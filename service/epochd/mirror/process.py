"""The process that mirrors: a thread a target, so that one that is slow holds up itself alone."""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from epochd.lifeline import at_end_of_input, exit_at_last
from epochd.mirror.follower import Follower
from epochd.mirror.mlflow import Mlflow
from epochd.mirror.targets import Target
from epochd.mirror.tensorboard import TensorBoard
from epochd.settings import Settings
from epochd.store.database import Database
from epochd.store.migrate import check_current

log = logging.getLogger("epochd.mirror")

STOP_POLL_SECONDS = 0.1
LEASES = 2
"""A mirror's lease in those of attempts: nothing is lost by waiting for it."""
REQUESTS_A_LEASE = 6
"""A helping takes at most five requests, each of which is waited for at most so much of the lease."""


class Mirror:
    """Mirrors all jobs to the targets that the settings name, until it is stopped."""

    def __init__(self, settings: Settings) -> None:
        self._db = Database(settings.resolved_database_url, archives=settings.artifacts_dir.resolve())
        self._stopped = False
        lease_seconds = LEASES * settings.lease_seconds
        holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._followers = [
            Follower(
                self._db, target, holder=holder, lease_seconds=lease_seconds, points=settings.mirror_points
            )
            for target in targets(settings, lease_seconds / REQUESTS_A_LEASE)
        ]

    def stop(self) -> None:
        """Ask it to end; safe in a signal handler."""
        self._stopped = True

    def run(self, shutdown_seconds: float) -> None:
        """Work until ``stop`` is called. A target that does not answer is not waited for."""
        check_current(self._db)
        threads = [threading.Thread(target=one.run, daemon=True) for one in self._followers]
        for thread in threads:
            thread.start()
        while not self._stopped:
            time.sleep(STOP_POLL_SECONDS)
        for follower in self._followers:
            follower.stopping.set()
        deadline = time.monotonic() + shutdown_seconds / 2
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._db.close()


def targets(settings: Settings, timeout_seconds: float) -> list[Target]:
    """Make the targets that the settings name."""
    found: list[Target] = []
    if settings.mirror_tensorboard is not None:
        found.append(TensorBoard(_made(settings)))
    if settings.mirror_mlflow is not None:
        found.append(Mlflow(settings.mirror_mlflow, timeout_seconds=timeout_seconds))
    return found


def _made(settings: Settings) -> Path:
    assert settings.mirror_tensorboard is not None
    directory = settings.mirror_tensorboard.resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("tensorboard: cannot make %s: %s", directory, error.strerror)
    return directory


def main(settings: Settings) -> None:
    """Mirror in this process until SIGTERM, or until standard input ends: the process that started it is gone."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    for chatty in ("alembic", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    mirror = Mirror(settings)

    def stop(_signal: int = 0, _frame: FrameType | None = None) -> None:
        exit_at_last(settings.shutdown_seconds)
        mirror.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    at_end_of_input(stop)
    mirror.run(settings.shutdown_seconds)
