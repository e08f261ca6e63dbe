"""Long-polls: a request that waits for a job costs a future, and no thread."""

import asyncio
from typing import Literal

from epochd.api.feed import Channel, Feed
from epochd.jobs.lifecycle import is_done
from epochd.store.jobs import JobRow

Until = Literal["done", "epoch", "change"]


async def wait_for(feed: Feed, row: JobRow, until: Until, seconds: float) -> None:
    """Wait until ``until`` has come true since ``row`` was read, or time is up, or the feed is closed."""
    if is_done(row.status):
        return
    deadline = asyncio.get_running_loop().time() + seconds
    with feed.watch(row.number) as channel:
        while not (feed.closed or _came(channel, row, until)):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            await channel.wait(left)


def _came(channel: Channel, row: JobRow, until: Until) -> bool:
    state = channel.state
    if channel.gone:
        return True
    if state is None or state.version <= row.version:
        return False
    moved_on = until == "change" or (until == "epoch" and state.epoch != row.epoch)
    return moved_on or is_done(state.status)
