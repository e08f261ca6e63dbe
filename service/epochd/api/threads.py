"""Threads for what may take long and is asked for by many at once."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool

T = TypeVar("T")
P = ParamSpec("P")


class FewThreads:
    """A few of the threads that all requests share: however many ask for one, the others are for everybody else."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread. Cancellation takes effect when it has returned."""
        async with self._free:
            return await run_in_threadpool(function, *args, **kwargs)
