"""One poller a process follows the database for everybody who waits here: streams and long-polls.

A thread hears of commits, reads the state of the watched jobs in one query, and turns what is new into
frames, once for all subscribers. The event loop keeps the newest frames of each watched job in a ring and
wakes whoever waits. A subscriber is a cursor and nothing else: there are no queues, so one that reads slowly
costs nothing and holds nobody back; when it has fallen behind the ring it reads pages from the database until
it has caught up.
"""

import asyncio
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from epochd.api import stream
from epochd.api.stream import Cursor, Frame, Page
from epochd.errors import DatabaseUnavailableError
from epochd.jobs.lifecycle import is_done
from epochd.store import jobs
from epochd.store.changes import ChangeFeed
from epochd.store.database import Database, Transaction
from epochd.store.jobs import Watched

log = logging.getLogger("epochd.api")

RING_FRAMES: Final = 256
RING_BYTES: Final = 1_048_576
ITERATIONS_EVERY_SECONDS: Final = 0.25
PATIENCE_SECONDS: Final = 0.1
IDLE_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 0.5


class Ring:
    """The newest frames of a job, with or without its iterations.

    ``tail``, ``version`` and ``due`` belong to the poller's thread, everything else to the event loop.
    """

    def __init__(self, head: Cursor, *, iterations: bool) -> None:
        self.head = head
        self.tail = head
        self.version = -1
        self.due = 0.0
        self.iterations = iterations
        self._frames: deque[Frame] = deque()
        self._places: dict[Cursor, int] = {}
        self._dropped = 0
        self._bytes = 0

    def since(self, cursor: Cursor) -> Page | None:
        """Give the frames that follow a cursor; None when they are not, or no longer, all here."""
        if cursor >= self.head:
            return Page([], cursor)
        place = self._places.get(cursor)
        if place is None:
            return None
        return Page(list(itertools.islice(self._frames, place - self._dropped, None)), self.head)

    def extend(self, frames: list[Frame], head: Cursor) -> None:
        """Add frames, and drop the oldest ones beyond the limits."""
        for frame in frames:
            self._places[frame.before] = self._dropped + len(self._frames)
            self._frames.append(frame)
            self._bytes += len(frame.data)
        self.head = head
        while len(self._frames) > RING_FRAMES or self._bytes > RING_BYTES:
            dropped = self._frames.popleft()
            del self._places[dropped.before]
            self._bytes -= len(dropped.data)
            self._dropped += 1


News = tuple[Ring, list[Frame], Cursor]
"""What is new on a ring, and its head behind that."""


class Channel:
    """A watched job. Belongs to the event loop, but for ``version``, which is the poller's."""

    def __init__(self, job_number: int) -> None:
        self.job_number = job_number
        self.users = 0
        self.state: Watched | None = None
        self.gone = False
        self.version = -1
        self.rings: dict[bool, Ring] = {}
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Wait for a change; False when none came in time. Between checking and this must be no await."""
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """Wake all who wait."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def publish(self, state: Watched | None, news: list[News]) -> None:
        """Take what the poller found; None for a job that is gone."""
        self.state, self.gone = state, state is None
        for ring, frames, head in news:
            ring.extend(frames, head)
        self.wake()


class Feed:
    """Watches jobs on behalf of many; starts its thread when the first one is watched."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._channels: dict[int, Channel] = {}
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._stale = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.closed = False

    def close(self) -> None:
        """End all streams and long-polls at once; for any thread, and for signal handlers."""
        # No lock may be taken here: the signal may have come while this very thread holds it.
        self.closed = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake_all)

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, after ``close``."""
        if self._thread is not None:
            self._thread.join(timeout)

    @contextmanager
    def watch(self, job_number: int) -> Iterator[Channel]:
        """Watch a job, on the event loop, until the block ends."""
        channel = self._enter(job_number)
        try:
            yield channel
        finally:
            self._leave(channel)

    def add_ring(self, channel: Channel, head: Cursor, *, iterations: bool) -> Ring:
        """Keep the frames behind ``head`` from now on, unless somebody was faster."""
        ring = channel.rings.setdefault(iterations, Ring(head, iterations=iterations))
        self._look_again()
        return ring

    def _enter(self, job_number: int) -> Channel:
        self._start()
        with self._lock:
            channel = self._channels.setdefault(job_number, Channel(job_number))
            channel.users += 1
        self._look_again()
        return channel

    def _leave(self, channel: Channel) -> None:
        channel.users -= 1
        if channel.users == 0:
            with self._lock:
                del self._channels[channel.job_number]

    def _look_again(self) -> None:
        # What was committed before the poller knew of a channel or ring, nobody tells it again.
        self._stale = True
        self._busy.set()

    def _start(self) -> None:
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
            self._thread.start()

    def _wake_all(self) -> None:
        self._busy.set()
        for channel in list(self._channels.values()):
            channel.wake()

    # From here on: the poller's thread.

    def _run(self) -> None:
        changes = ChangeFeed(self._db)
        due = math.inf
        while not self.closed:
            if not self._busy.wait(IDLE_SECONDS):
                continue
            patience = max(0.0, min(PATIENCE_SECONDS, due - time.monotonic()))
            if self._stale or changes.wait(patience) or time.monotonic() >= due:
                due = self._look_patiently()
        changes.close()

    def _look_patiently(self) -> float:
        try:
            return self._look()
        except Exception as error:
            told = None if isinstance(error, DatabaseUnavailableError) else error
            log.warning("the feed could not read what changed and tries again: %s", error, exc_info=told)
            self._stale = True
            time.sleep(RETRY_SECONDS)
            return math.inf

    def _look(self) -> float:
        """Publish what is new; return the moment at which to look again even if nothing changes."""
        self._stale = False
        with self._lock:
            watched = list(self._channels.values())
            if not watched:
                self._busy.clear()
                return math.inf
        with self._db.read() as tx:
            states = {state.number: state for state in jobs.watch(tx, [one.job_number for one in watched])}
            return min(self._follow(tx, one, states.get(one.job_number)) for one in watched)

    def _follow(self, tx: Transaction, channel: Channel, state: Watched | None) -> float:
        """Publish what is new on a channel; return the moment at which its iterations are due."""
        if state is None:
            self._publish(channel, None, [])
            return math.inf
        now = time.monotonic()
        behind = [ring for ring in list(channel.rings.values()) if ring.version != state.version]
        due = [ring for ring in behind if ring.due <= now or is_done(state.status)]
        news = [(ring, *_read(tx, ring, state)) for ring in due]
        if news or channel.version != state.version:
            self._publish(channel, state, news)
        channel.version = state.version
        for ring, frames, tail in news:
            ring.version, ring.tail = state.version, tail
            ring.due = now + ITERATIONS_EVERY_SECONDS if ring.iterations and frames else ring.due
        return min((ring.due for ring in behind if ring not in due), default=math.inf)

    def _publish(self, channel: Channel, state: Watched | None, news: list[News]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(channel.publish, state, news)


def _read(tx: Transaction, ring: Ring, state: Watched) -> tuple[list[Frame], Cursor]:
    """Read all that is new for a ring, in however many pages."""
    head = Cursor(state.last_event, state.iteration, state.attempt)
    cursor, frames = ring.tail, list[Frame]()
    while True:
        page = stream.read_page(tx, state.number, cursor, head, iterations=ring.iterations)
        frames.extend(page.frames)
        if page.cursor == cursor:
            return frames, cursor
        cursor = page.cursor
