"""Who waits for a job, and is told by the feed that it has changed."""

import asyncio
from typing import Protocol


class Watcher(Protocol):
    """What the feed tells of a watched job, on the event loop."""

    def wake(self) -> None:
        """Hear that something may have changed."""

    def close(self) -> None:
        """Hear that the service ends."""


class Sleeper:
    """One coroutine that sleeps until something wakes it; being woken while awake counts for its next sleep."""

    __slots__ = ("_alarm", "_woken")

    def __init__(self) -> None:
        self._alarm: asyncio.Future[None] | None = None
        self._woken = False

    @property
    def asleep(self) -> bool:
        """Whether it sleeps, and nothing has woken it yet."""
        return self._alarm is not None and not self._woken

    async def sleep(self) -> None:
        """Sleep, unless woken since the last sleep. Whoever wakes up looks what it was for, which may be nothing."""
        if not self._woken:
            self._alarm = asyncio.get_running_loop().create_future()
            try:
                await self._alarm
            finally:
                self._alarm = None
        self._woken = False

    def wake(self) -> None:
        """Wake it; on the event loop."""
        self._woken = True
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)

    def close(self) -> None:
        """Wake it for the last time: the service ends."""
        self.wake()
