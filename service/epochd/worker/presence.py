"""Tells the others that this worker lives, and what it has."""

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from epochd.store import models, workers
from epochd.store.database import Database, Transaction
from epochd.worker.device_memory import DeviceMemory
from epochd.worker.loop import Loop

SEEN_EVERY_SECONDS = 5.0
FORGET_SECONDS = 86_400.0


class Presence(Loop):
    """Keeps the worker's row fresh, and removes it at a clean shutdown; publishes the operator's models that it has."""

    def __init__(
        self,
        db: Database,
        worker: str,
        devices: Sequence[str],
        memory: DeviceMemory,
        published: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__("presence")
        self._db = db
        self._worker = worker
        self._devices = list(devices)
        self._memory = memory
        self._published = list(published)

    def arrive(self) -> None:
        """Make the worker known, before it takes its first job; forget those that left without a word long ago."""
        with self._db.write() as tx:
            workers.forget(tx, FORGET_SECONDS)
            self._register(tx)

    def tick(self) -> None:
        """Say once more that the worker lives, and how full its devices are."""
        with self._db.write() as tx:
            if not workers.seen(tx, self._worker, self._memory.newest()):
                self._register(tx)
        self.stopping.wait(SEEN_EVERY_SECONDS)

    def _register(self, tx: Transaction) -> None:
        workers.register(
            tx,
            id=self._worker,
            host=platform.node(),
            pid=os.getpid(),
            devices=sorted(set(self._devices)),
            slots=len(self._devices),
            memory=self._memory.newest(),
            models=[one["name"] for one in self._published],
        )
        models.publish(tx, self._published)

    def leave(self) -> None:
        """Take the worker's row away."""
        with self._db.write() as tx:
            workers.remove(tx, self._worker)


def worker_id() -> str:
    """Name this process among all workers: ``host:pid``."""
    return f"{platform.node()}:{os.getpid()}"
