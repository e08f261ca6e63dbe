"""How many data sets this process takes in at once, and where."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from epochd.api.threads import FewThreads
from epochd.errors import EpochdError
from epochd.intake import child, incoming
from epochd.intake.answer import disk_full, is_disk_full
from epochd.intake.child import Read
from epochd.intake.incoming import Incoming
from epochd.intake.order import Order
from epochd.jobs import datasets
from epochd.settings import Settings
from epochd.store.database import Database

log = logging.getLogger("epochd.api")

READ_AT_ONCE: Final = 2
THREADS: Final = 4


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Intake:
    """Takes data sets in; ``threads`` write what is uploaded."""

    def __init__(self, settings: Settings) -> None:
        self.directory = settings.datasets_dir.resolve()
        self.threads = FewThreads(THREADS)
        self.memory_bytes = max(child.LEAST_MEMORY_BYTES, child.memory_bytes() // READ_AT_ONCE)
        self._free = asyncio.Semaphore(READ_AT_ONCE)

    def sweep(self, db: Database) -> None:
        """Take away what processes left that were killed. A database that is away is no reason not to start."""
        try:
            incoming.sweep(self.directory / datasets.INCOMING)
            datasets.sweep(db, self.directory)
        except (OSError, EpochdError) as error:
            log.warning("what was left of unfinished data sets stays for now: %s", error)

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Incoming]:
        """Make a folder that is gone at the end of the block, however that ends."""
        try:
            found = incoming.make(self.directory / datasets.INCOMING)
        except OSError as error:
            raise (disk_full() if is_disk_full(error) else error) from error
        try:
            yield found
        finally:
            found.remove()

    async def read(self, request: Request, order: Order, lock: int) -> Read:
        """Have an order carried out; not any longer than the client waits for it.

        Raises what ``child.read`` does, and ``ClientGoneError``.
        """
        reading = asyncio.create_task(self._read(order, lock))
        gone = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait({reading, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise ClientGoneError
            return reading.result()
        finally:
            for task in (reading, gone):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def _read(self, order: Order, lock: int) -> Read:
        async with self._free:
            return await child.read(order, lock)

    async def register(self, db: Database, arrived: datasets.Arrived) -> datasets.Registered:
        """Store a data set that was read."""
        try:
            return await run_in_threadpool(datasets.register, db, self.directory, arrived)
        except OSError as error:
            raise (disk_full() if is_disk_full(error) else error) from error


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def get_intake(request: Request) -> Intake:
    """Give that of this process."""
    intake = request.app.state.intake
    assert isinstance(intake, Intake)
    return intake


IntakeDep = Annotated[Intake, Depends(get_intake)]
