"""What a listener to a job's stream is sent: everything behind its cursor, whatever happens."""

import time
from typing import Final

import orjson

from epochd.api import stream
from epochd.api.event_stream import Listener
from epochd.api.feed import Channel, Chunk, Feed, Ring, join
from epochd.api.stream import Cursor
from epochd.store.database import Database

TOO_SLOW: Final = (
    "You have not taken the events as fast as they came. Connect again with `resume_after` as Last-Event-ID: what "
    "follows it will come without a gap."
)


class Subscriber:
    """A cursor, and where to take what follows it.

    ``known`` is an event that had happened when the request came: the stream does not end before it, even if the feed
    has yet to hear of it. ``patience`` is how many seconds somebody who had been up to date may stay behind the feed's
    ring.
    """

    __slots__ = (
        "_channel",
        "_cursor",
        "_db",
        "_feed",
        "_iterations",
        "_job_number",
        "_known",
        "_over",
        "_patience",
        "_up_to_date_at",
        "listener",
    )

    _channel: Channel
    listener: Listener

    def __init__(  # noqa: PLR0913 - each is its own thing
        self,
        db: Database,
        feed: Feed,
        job_number: int,
        cursor: Cursor,
        *,
        known: int,
        iterations: bool,
        patience: float,
    ) -> None:
        self._db = db
        self._feed = feed
        self._job_number = job_number
        self._cursor = cursor
        self._known = known
        self._iterations = iterations
        self._patience = patience
        self._over = False
        self._up_to_date_at: float | None = None

    async def tell(self, listener: Listener) -> None:
        """Send the stream until the job's last event, the feed's end, or an error, which is told."""
        self.listener = listener
        with self._feed.watch(self._job_number, self) as self._channel:
            try:
                last = await self._tell(self._channel)
            except Exception as error:  # noqa: BLE001 - the answer has begun: the error can only be told in it
                last = stream.failure(error)
            if not listener.gone:
                await listener.end(last)

    def wake(self) -> None:
        """Pass on what is new, if the listener can take it at once; else its coroutine does what there is to do."""
        chunk = self._next()
        if chunk is None or (chunk.data and not (chunk.ready and self.listener.pass_on(chunk.ready))):
            self.listener.wake()
        else:
            self._cursor = chunk.after

    def close(self) -> None:
        """Hear that the service ends."""
        self.listener.close()

    def _next(self) -> Chunk | None:
        ring = self._channel.rings.get(self._iterations)
        return None if ring is None or self._channel.over else ring.since(self._cursor)

    async def _tell(self, channel: Channel) -> bytes:
        """Send all but the last message, and give that, if there is one."""
        await self.listener.send(stream.PREAMBLE)
        ring = channel.rings.get(self._iterations) or await self._new_ring(channel)
        while not (self._over or self._feed.closed or self.listener.gone):
            if channel.failure:
                return channel.failure
            if self._cursor >= ring.head:
                if channel.gone:
                    break
                await self._wait()
            if self.listener.slow or self._is_late(ring):
                return self._interruption()
            await self._go_on(ring)
        return b""

    async def _wait(self) -> None:
        if self.listener.silent:
            await self.listener.send(stream.HEARTBEAT)
        await self.listener.sleep()
        self._up_to_date_at = time.monotonic()

    def _is_late(self, ring: Ring) -> bool:
        """Whether it was up to date once, and has now been away from the ring for longer than its patience."""
        if self._up_to_date_at is None or ring.since(self._cursor) is not None:
            return False
        return time.monotonic() - self._up_to_date_at >= self._patience

    async def _go_on(self, ring: Ring) -> None:
        """Send what is there in the ring or, behind it, in the database: some of it at a time."""
        chunk = ring.since(self._cursor)
        if chunk is None:
            chunk = await self._feed.threads.run(self._read, ring.head)
        if chunk.data:
            await self.listener.send(chunk.data)
        # Nothing is left where something should be: deleted.
        deleted = chunk.after == self._cursor < ring.head
        self._cursor = chunk.after
        is_newest = self._cursor.seq >= max(ring.head.seq, self._known)
        self._over = deleted or (chunk.terminal and is_newest)

    async def _new_ring(self, channel: Channel) -> Ring:
        head = await self._feed.threads.run(self._head)
        return self._feed.add_ring(channel, head, iterations=self._iterations)

    def _head(self) -> Cursor:
        with self._db.read() as tx:
            return stream.head_of(tx, self._job_number, iterations=self._iterations) or self._cursor

    def _read(self, head: Cursor) -> Chunk:
        with self._db.read() as tx:
            page = stream.read_page(tx, self._job_number, self._cursor, head, iterations=self._iterations)
        return join(page.frames, 0, page.cursor)

    def _interruption(self) -> bytes:
        seq, iteration, _ = self._cursor
        resume_after = f"{seq}-{iteration}" if self._iterations else str(seq)
        data = {"code": "too_slow", "message": TOO_SLOW, "resume_after": resume_after}
        return stream.encode("stream.interrupted", orjson.dumps(data))
