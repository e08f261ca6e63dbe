"""Wakes idle slots as soon as something happens in the database."""

import threading

from epochd.store.changes import ChangeFeed
from epochd.store.database import Database
from epochd.worker.loop import Loop

FEED_SECONDS = 1.0


class Waker(Loop):
    """Counts the changes that the feed reports, and lets others wait for the next one."""

    def __init__(self, db: Database) -> None:
        super().__init__("waker")
        self._feed = ChangeFeed(db)
        self._changed = threading.Condition()
        self._changes = 0

    @property
    def changes(self) -> int:
        """Changes seen so far: read it before looking at the database, and hand it to ``wait_beyond``."""
        return self._changes

    def wait_beyond(self, seen: int, timeout: float) -> None:
        """Wait until there was a change after the ``seen``-th; returns at once when it has come already."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes > seen, timeout)

    def tick(self) -> None:
        """Wait for a commit, by whomever, and pass the word on."""
        if self._feed.wait(FEED_SECONDS):
            self.wake()

    def wake(self) -> None:
        """Wake everybody who waits."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of the feed's connection."""
        self._feed.close()
