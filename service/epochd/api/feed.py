"""One poller a process follows the database for everybody who waits here: streams and long-polls.

A thread hears of commits, reads the state of the watched jobs in one query, and turns what is new into
frames, once for all subscribers. The event loop keeps the newest frames of each watched job in a ring and
tells whoever waits. A subscriber is a cursor and nothing else: there are no queues, so one that reads slowly
costs nothing and holds nobody back; when it has fallen behind the ring it reads pages from the database until
it has caught up, if it does so in time.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVarTuple

from epochd.api import stream
from epochd.api.protocol import chunk_of
from epochd.api.sleeper import Watcher
from epochd.api.stream import Cursor, Frame
from epochd.api.threads import FewThreads
from epochd.errors import DatabaseUnavailableError
from epochd.jobs.lifecycle import is_done
from epochd.store import jobs
from epochd.store.changes import ChangeFeed
from epochd.store.database import Database, Transaction
from epochd.store.jobs import Watched

Ts = TypeVarTuple("Ts")

log = logging.getLogger("epochd.api")

RING_FRAMES: Final = 256
RING_BYTES: Final = 4_194_304
CHUNK_BYTES: Final = 65_536
SQLITE_POLL_SECONDS: Final = 0.005
ITERATIONS_EVERY_SECONDS: Final = 0.25
PATIENCE_SECONDS: Final = 0.1
IDLE_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 0.5
FAILURES_BEFORE_TOLD: Final = 3
READS_AT_ONCE: Final = 4


class Chunk(NamedTuple):
    """Frames as one piece, and the cursor behind it; ``terminal`` as the last of them is.

    ``ready``: the same as a chunk of HTTP, when there is nothing to do but to send it: it is all there is, and not
    the end.
    """

    data: bytes
    after: Cursor
    terminal: bool = False
    ready: bytes = b""


def join(frames: Sequence[Frame], begin: int, head: Cursor) -> Chunk:
    """Put together the frames from a place on, up to about ``CHUNK_BYTES``; ``head`` is the cursor behind all."""
    pieces, size, end = list[bytes](), 0, begin
    while end < len(frames) and size < CHUNK_BYTES:
        pieces.append(frames[end].data)
        size += len(pieces[-1])
        end += 1
    after = frames[end].before if end < len(frames) else head
    return Chunk(b"".join(pieces), after, end > begin and frames[end - 1].terminal)


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
        self._latest: Chunk | None = None
        self._latest_from = head

    def since(self, cursor: Cursor) -> Chunk | None:
        """Give what follows a cursor, or a part of it; None when it is not, or no longer, all here."""
        if cursor >= self.head:
            return Chunk(b"", cursor)
        # Those who are up to date are all at the same place: it is put together once for all of them.
        if self._latest is None or self._latest_from != cursor:
            self._latest_from, self._latest = cursor, self._join(cursor)
        return self._latest

    def _join(self, cursor: Cursor) -> Chunk | None:
        place = self._places.get(cursor)
        if place is None:
            return None
        chunk = join(self._frames, place - self._dropped, self.head)
        is_all = chunk.after == self.head and not chunk.terminal
        return chunk._replace(ready=chunk_of(chunk.data)) if is_all else chunk

    def extend(self, frames: list[Frame], head: Cursor) -> None:
        """Add frames, and drop the oldest ones beyond the limits."""
        for frame in frames:
            self._places[frame.before] = self._dropped + len(self._frames)
            self._frames.append(frame)
            self._bytes += len(frame.data)
        self.head, self._latest = head, None
        while len(self._frames) > RING_FRAMES or self._bytes > RING_BYTES:
            dropped = self._frames.popleft()
            del self._places[dropped.before]
            self._bytes -= len(dropped.data)
            self._dropped += 1


News = tuple[Ring, list[Frame], Cursor]
"""What is new on a ring, and its head behind that."""


class Channel:
    """A watched job. Belongs to the event loop, but for what is the poller's: ``version``, ``failures``, ``retry_at``.

    ``failure`` is the message with which its streams end, when it cannot be followed.
    """

    def __init__(self, job_number: int) -> None:
        self.job_number = job_number
        self.users: set[Watcher] = set()
        self.state: Watched | None = None
        self.gone = False
        self.failure = b""
        self.version = -1
        self.failures = 0
        self.retry_at = 0.0
        self.rings: dict[bool, Ring] = {}

    @property
    def over(self) -> bool:
        """Whether nothing follows what is in its rings."""
        return self.gone or bool(self.failure)

    def wake(self) -> None:
        """Tell all who watch it."""
        for user in self.users:
            user.wake()

    def fail(self, failure: bytes) -> None:
        """Let its streams end."""
        self.failure = failure
        self.wake()

    def publish(self, state: Watched | None, news: list[News]) -> None:
        """Take what the poller found; None for a job that is gone."""
        self.state, self.gone, self.failure = state, state is None, b""
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
        # After a restart everybody comes at once to catch up, and so do those who change jobs.
        self.threads = FewThreads(READS_AT_ONCE)
        self.closed = False

    def close(self) -> None:
        """End all streams and long-polls at once; for any thread, and for signal handlers."""
        # No lock may be taken here: the signal may have come while this very thread holds it.
        self.closed = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._close_all)

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, after ``close``."""
        if self._thread is not None:
            self._thread.join(timeout)

    @contextmanager
    def watch(self, job_number: int, user: Watcher) -> Iterator[Channel]:
        """Watch a job, on the event loop, until the block ends; ``user`` hears of each change of it."""
        channel = self._enter(job_number, user)
        try:
            yield channel
        finally:
            self._leave(channel, user)

    def add_ring(self, channel: Channel, head: Cursor, *, iterations: bool) -> Ring:
        """Keep the frames behind ``head`` from now on, unless somebody was faster."""
        if iterations not in channel.rings:
            channel.rings[iterations] = Ring(head, iterations=iterations)
            self._look_again()
        return channel.rings[iterations]

    def _enter(self, job_number: int, user: Watcher) -> Channel:
        self._start()
        channel = self._channels.get(job_number)
        if channel is None:
            channel = Channel(job_number)
            with self._lock:
                self._channels[job_number] = channel
            self._look_again()
        channel.users.add(user)
        if self.closed:
            user.close()
        return channel

    def _leave(self, channel: Channel, user: Watcher) -> None:
        channel.users.discard(user)
        if not channel.users:
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

    def _close_all(self) -> None:
        self._busy.set()
        for channel in list(self._channels.values()):
            for user in channel.users:
                user.close()

    # From here on: the poller's thread.

    def _run(self) -> None:
        changes = ChangeFeed(self._db, sqlite_poll_seconds=SQLITE_POLL_SECONDS)
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
        sound = [one for one in watched if not one.failures]
        try:
            due = self._follow_all(sound)
        except DatabaseUnavailableError:
            raise
        except Exception:  # noqa: BLE001 - whose it is shows when each is followed by itself, and so is it told
            due = min(self._follow_alone(one) for one in sound)
        return min([due, *(self._follow_alone(one) for one in watched if one.failures)])

    def _follow_all(self, channels: list[Channel]) -> float:
        if not channels:
            return math.inf
        with self._db.read() as tx:
            states = {state.number: state for state in jobs.watch(tx, [one.job_number for one in channels])}
            return min(self._follow(tx, one, states.get(one.job_number)) for one in channels)

    def _follow_alone(self, channel: Channel) -> float:
        """Follow a channel that may not be sound, so that the others do not suffer from it."""
        if channel.retry_at > time.monotonic():
            return channel.retry_at
        try:
            due = self._follow_all([channel])
        except DatabaseUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - what it is tells the log
            return self._failed(channel, error)
        channel.failures = 0
        return due

    def _failed(self, channel: Channel, error: Exception) -> float:
        channel.failures += 1
        if channel.failures == 1:
            log.warning("job number %d cannot be followed: trying again", channel.job_number, exc_info=error)
        if channel.failures == FAILURES_BEFORE_TOLD:
            self._call(channel.fail, stream.failure(error))
        channel.retry_at = time.monotonic() + RETRY_SECONDS
        return channel.retry_at

    def _follow(self, tx: Transaction, channel: Channel, state: Watched | None) -> float:
        """Publish what is new on a channel; return the moment at which its iterations are due."""
        if state is None:
            self._call(channel.publish, None, [])
            return math.inf
        now = time.monotonic()
        behind = [ring for ring in list(channel.rings.values()) if ring.version != state.version]
        due = [ring for ring in behind if ring.due <= now or is_done(state.status)]
        news = [(ring, *_read(tx, ring, state)) for ring in due]
        if news or channel.version != state.version:
            self._call(channel.publish, state, news)
        channel.version = state.version
        for ring, frames, tail in news:
            ring.version, ring.tail = state.version, tail
            ring.due = now + ITERATIONS_EVERY_SECONDS if ring.iterations and frames else ring.due
        return min((ring.due for ring in behind if ring not in due), default=math.inf)

    def _call(self, function: Callable[[*Ts], None], *arguments: *Ts) -> None:
        """Call a function on the event loop."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


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
