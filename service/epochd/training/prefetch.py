"""What a thread makes ahead of whoever takes it."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")

AHEAD = 2
"""One item waits while the next one is being made."""


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing follows: all items were taken, or making one failed."""

    error: BaseException | None


def prefetched(items: Generator[Item], ahead: int = AHEAD) -> Generator[Item]:
    """The same items, made by a thread of their own; at most ``ahead`` of them wait or are being made.

    What ``items`` raises is raised here, after the items before it. Closing this generator ends the thread, and
    closes ``items``, before it returns; it waits for an item that is being made.
    """
    prefetch = _Prefetch(items, ahead)
    prefetch.start()
    try:
        yield from prefetch.take()
    finally:
        prefetch.stop()


class _Prefetch(Generic[Item]):
    """A thread, the items that it has made, and how many more it may make."""

    def __init__(self, items: Generator[Item], ahead: int) -> None:
        self._items = items
        self._made: SimpleQueue[Item | _End] = SimpleQueue()
        self._room = Semaphore(ahead)
        self._stopped = False
        self._thread = Thread(target=self._run, name="prefetch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self) -> Generator[Item]:
        while not isinstance(item := self._made.get(), _End):
            self._room.release()
            yield item
            del item  # not kept while the next one is waited for
        if item.error is not None:
            raise item.error

    def stop(self) -> None:
        self._stopped = True
        self._room.release()
        self._thread.join()

    def _run(self) -> None:
        error = None
        try:
            with closing(self._items) as items:
                self._make(items)
        except BaseException as raised:  # noqa: BLE001 - whoever takes the items gets it
            error = raised
        self._made.put(_End(error))

    def _make(self, items: Generator[Item]) -> None:
        while self._has_room() and (item := next(items, None)) is not None:
            self._made.put(item)
            del item  # whoever takes it decides how long it lives

    def _has_room(self) -> bool:
        """Wait for room; False when nothing more is wanted."""
        self._room.acquire()
        return not self._stopped
