"""Long-polls: a request that waits for a job costs a future, and no thread."""

import asyncio
from typing import Any, Literal

from starlette.types import Receive

from epochd.api.feed import Channel, Feed
from epochd.api.sleeper import Sleeper
from epochd.errors import PayloadTooLargeError
from epochd.jobs.lifecycle import is_done
from epochd.store.jobs import JobRow

Until = Literal["done", "epoch", "change"]


class Caller(Sleeper):
    """Who waits for an answer, until it leaves."""

    __slots__ = ("_listening", "gone")

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self.gone = False
        self._listening: asyncio.Task[Any] = asyncio.create_task(self._listen(receive))

    async def _listen(self, receive: Receive) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except PayloadTooLargeError:
            return  # a body that nobody asked for; that it goes on and on is no end
        self.gone = True
        self.wake()

    def leave(self) -> None:
        """Listen no more."""
        self._listening.cancel()


async def wait_for(feed: Feed, row: JobRow, until: Until, seconds: float, receive: Receive) -> None:
    """Wait until ``until`` has come true since ``row`` was read.

    It ends before that when time is up, when the feed is closed, and when whoever waits has left.
    """
    loop = asyncio.get_running_loop()
    caller = Caller(receive)
    timer = loop.call_later(seconds, caller.wake)
    try:
        with feed.watch(row.number, caller) as channel:
            while not (
                feed.closed or caller.gone or _came(channel, row, until) or loop.time() >= timer.when()
            ):
                await caller.sleep()
    finally:
        timer.cancel()
        caller.leave()


def is_to_wait(feed: Feed, row: JobRow) -> bool:
    """Whether there is anything to wait for."""
    return not (is_done(row.status) or feed.closed)


def _came(channel: Channel, row: JobRow, until: Until) -> bool:
    state = channel.state
    if channel.gone:
        return True
    if state is None or state.version <= row.version:
        return False
    moved_on = until == "change" or (until == "epoch" and state.epoch != row.epoch)
    return moved_on or is_done(state.status)
