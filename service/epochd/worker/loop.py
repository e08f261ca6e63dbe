"""The one shape of everything that runs in the background: a thread that can be told to stop."""

import logging
import threading
from abc import ABC, abstractmethod

from epochd.errors import DatabaseUnavailableError

log = logging.getLogger("epochd.worker")

RETRY_SECONDS = 1.0


class Loop(ABC):
    """A thread that calls ``tick`` until it is stopped; a database that is away is waited for."""

    def __init__(self, name: str) -> None:
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after its current tick; returns at once."""
        self.stopping.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout)

    @abstractmethod
    def tick(self) -> None:
        """Do one piece of work, then wait for the next; return early once ``stopping`` is set."""

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                self.tick()
            except DatabaseUnavailableError as error:
                log.warning("%s: %s", self._thread.name, error.message)
                self.stopping.wait(RETRY_SECONDS)
            except Exception:
                # A loop that dies unseen leaves jobs stuck: say what happened, and go on.
                log.exception("%s: unexpected error", self._thread.name)
                self.stopping.wait(RETRY_SECONDS)
