"""Keeps the workers of ``epochd serve`` alive: starts them, starts them again when they die, and stops them."""

import logging
import os
import subprocess
import sys
import time

from epochd.settings import Settings
from epochd.worker.loop import Loop

log = logging.getLogger("epochd.worker")

CHECK_SECONDS = 0.5
MAX_RESTART_DELAY_SECONDS = 30.0
SETTLED_SECONDS = 30.0


class _Child:
    """One worker process, started again after a delay that doubles while it keeps dying young."""

    def __init__(self, settings: Settings, index: int) -> None:
        self._settings = settings
        self._index = index
        self._delay = 1.0
        self._started_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = [sys.executable, "-m", "epochd.worker", str(self._index), str(self._settings.workers)]
        # Its standard input is a lifeline: it ends with this process, however that ends.
        self._process = subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
            arguments,
            stdin=subprocess.PIPE,
            env=self._environment(),
            process_group=0,  # Ctrl-C in a terminal is for this process, which then stops the workers in order
        )
        self._started_at = time.monotonic()

    def _environment(self) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
        return {**others, **self._settings.environment()}

    def restart_if_dead(self) -> None:
        if self._process is None or self._process.poll() is None:
            return
        age = time.monotonic() - self._started_at
        if age >= self._delay:
            self._delay = 1.0 if age >= SETTLED_SECONDS else min(self._delay * 2, MAX_RESTART_DELAY_SECONDS)
            log.error(
                "worker %s ended with code %s; starting it again", self._index, self._process.returncode
            )
            self.start()

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("worker %s did not end in time and is killed", self._index)
            self._process.kill()
            self._process.wait()


class WorkerSupervisor(Loop):
    """The workers beside one API process."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("worker supervisor")
        self._settings = settings
        self._children = [_Child(settings, index) for index in range(settings.workers)]

    def start(self) -> None:
        """Start all workers."""
        for child in self._children:
            child.start()
        super().start()

    def tick(self) -> None:
        """Start again what has died."""
        for child in self._children:
            child.restart_if_dead()
        self.stopping.wait(CHECK_SECONDS)

    def stop(self) -> None:
        """Stop all workers; those that take longer than ``shutdown_seconds`` are killed."""
        super().stop()
        self.join()
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + self._settings.shutdown_seconds
        for child in self._children:
            child.wait(deadline)
