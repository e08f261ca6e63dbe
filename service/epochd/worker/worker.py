"""The worker process: slots, presence and reaper around one executor."""

import logging
import os
import signal
import sys
import time
from types import FrameType

from epochd.errors import DatabaseUnavailableError
from epochd.lifeline import at_end_of_input, exit_at_last
from epochd.settings import Settings
from epochd.store.database import Database
from epochd.store.migrate import check_current
from epochd.worker.data_memory import default_data_memory
from epochd.worker.device_memory import DeviceMemory
from epochd.worker.executors.local import LocalExecutor
from epochd.worker.follower import SlotConfig
from epochd.worker.loop import Loop
from epochd.worker.order import Folders
from epochd.worker.presence import Presence, worker_id
from epochd.worker.reaper import Reaper
from epochd.worker.slots import Slot
from epochd.worker.sweep import Sweeper
from epochd.worker.waker import Waker

log = logging.getLogger("epochd.worker")

STOP_POLL_SECONDS = 0.1
DRAIN_SHARE = 0.7
"""Part of the time for a shutdown in which runners may save what they have trained; the rest is for ending them."""


class Worker:
    """Trains jobs until told to stop. ``share`` is (index, count) among the workers of one ``serve``."""

    def __init__(
        self, settings: Settings, share: tuple[int, int] = (0, 1), executor: LocalExecutor | None = None
    ) -> None:
        self._settings = settings
        self._share = share
        self._db = Database(settings.resolved_database_url, archives=settings.artifacts_dir.resolve())
        self._executor = executor or LocalExecutor()
        self._stopped = False
        self._waker = Waker(self._db)
        self._loops: list[Loop] = []
        self._models: tuple[str, ...] = ()

    def stop(self) -> None:
        """Ask the worker to give its jobs back and end; safe in a signal handler."""
        # A plain flag: a lock, such as an Event's, might be held by the very thread that the signal interrupts.
        self._stopped = True

    def run(self) -> None:
        """Work until ``stop`` is called; then give running attempts back and leave."""
        check_current(self._db)
        self._executor.start()
        devices = self._devices()
        worker = worker_id()
        memory = DeviceMemory(devices)
        published = self._executor.operator_models()
        self._models = tuple(str(one["name"]) for one in published)
        presence = Presence(self._db, worker, devices, memory, published)
        presence.arrive()
        self._loops = [
            self._waker,
            memory,
            presence,
            Reaper(
                self._db,
                lease_seconds=self._settings.lease_seconds,
                retry_delay_seconds=self._settings.retry_delay_seconds,
            ),
            Sweeper(self._db, Folders.of(self._settings), self._settings.keep_iterations_days),
            *(self._slot(worker, device, len(devices)) for device in devices),
        ]
        for loop in self._loops:
            loop.start()
        log.info("worker %s trains on %s", worker, ", ".join(devices))
        while not self._stopped:
            time.sleep(STOP_POLL_SECONDS)
        self._shut_down(presence)

    def _shut_down(self, presence: Presence) -> None:
        for loop in self._loops:
            loop.stop()
        self._waker.wake()
        deadline = time.monotonic() + self._settings.shutdown_seconds
        for loop in self._loops:
            loop.join(max(0.0, deadline - time.monotonic()))
        try:
            presence.leave()
        except DatabaseUnavailableError as error:
            log.warning("the worker could not sign off: %s", error.message)
        self._waker.close()
        self._executor.close()
        self._db.close()

    def _devices(self) -> list[str]:
        index, count = self._share
        found = self._executor.devices(self._settings.device)
        mine = found[index::count] or [found[index % len(found)]]
        return mine * (self._settings.slots or 1)

    def _slot(self, worker: str, device: str, slots: int) -> Slot:
        settings = self._settings
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        memory = settings.data_memory_bytes
        if memory is None:
            memory = default_data_memory(slots * self._share[1])
        config = SlotConfig(
            worker=worker,
            database_url=settings.resolved_database_url,
            folders=Folders.of(settings),
            threads=settings.threads or max(1, cores // (slots * self._share[1])),
            lease_seconds=settings.lease_seconds,
            retry_delay_seconds=settings.retry_delay_seconds,
            drain_seconds=DRAIN_SHARE * settings.shutdown_seconds,
            log_level=settings.log_level,
            models=self._models,
            data_memory_bytes=memory,
        )
        return Slot(self._db, self._executor, config, device, self._waker)


def main(settings: Settings, share: tuple[int, int] = (0, 1), *, lifeline: bool = False) -> None:
    """Run a worker in this process until SIGTERM or Ctrl-C.

    With ``lifeline`` it also stops when standard input ends: the process that started it is gone.
    """
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    worker = Worker(settings, share)

    def stop(_signal: int = 0, _frame: FrameType | None = None) -> None:
        exit_at_last(2 * settings.shutdown_seconds)
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if lifeline:
        at_end_of_input(stop)
    worker.run()
