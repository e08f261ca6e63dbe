"""Readers of ordinary answers who do not read: their connections are cut, as those of slow readers of streams are."""

import asyncio
import fcntl
import logging
import struct
import termios
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from epochd.api.protocol import TRANSPORT

log = logging.getLogger("epochd.api")

LOOKS_A_PATIENCE: Final = 4
CLOSING_PATIENCE_SECONDS: Final = 0.5


class Patience:
    """How long bytes may wait, not one of them taken, before their connection is aborted.

    ``close`` makes that short, so that a shutdown waits for those who read only.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._watches: dict[asyncio.Transport, _Watch] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, transport: asyncio.Transport) -> None:
        """Look after bytes that were just written; on the event loop."""
        watch = self._watches.get(transport)
        if watch is not None:
            watch.go_on()
            return
        self._loop = asyncio.get_running_loop()
        self._watches[transport] = _Watch(self, transport)

    def forget(self, transport: asyncio.Transport) -> None:
        """Look after a transport no more."""
        self._watches.pop(transport, None)

    def close(self) -> None:
        """Have little patience from now on; for any thread."""
        self.seconds = min(self.seconds, CLOSING_PATIENCE_SECONDS)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hurry)

    def _hurry(self) -> None:
        for watch in list(self._watches.values()):
            watch.hurry()


class _Watch:
    """Bytes that wait for their reader."""

    __slots__ = ("_left", "_loop", "_patience", "_taken_at", "_timer", "_transport")

    def __init__(self, patience: Patience, transport: asyncio.Transport) -> None:
        self._patience = patience
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._left = _waiting(transport)
        self._taken_at = self._loop.time()
        self._timer = self._loop.call_later(self._until_next_look(), self._look)

    def go_on(self) -> None:
        """Note that more was written: there was room for it."""
        self._taken_at = self._loop.time()

    def hurry(self) -> None:
        """Look now, and from now on more often."""
        self._timer.cancel()
        self._look()

    def _until_next_look(self) -> float:
        return self._patience.seconds / LOOKS_A_PATIENCE

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() == 0:
            self._patience.forget(self._transport)  # the rest is for the kernel
            return
        left, self._left = self._left, _waiting(self._transport)
        if left != self._left:
            self._taken_at = self._loop.time()
        elif self._loop.time() - self._taken_at >= self._patience.seconds:
            log.warning("an answer was cut off: its reader took nothing for %g s", self._patience.seconds)
            self._patience.forget(self._transport)
            self._transport.abort()
            return
        self._timer = self._loop.call_later(self._until_next_look(), self._look)


def _waiting(transport: asyncio.Transport) -> int:
    """Count the bytes that wait, those in the kernel included: it takes new ones only when it has sent many."""
    return transport.get_write_buffer_size() + _in_kernel(transport)


def _in_kernel(transport: asyncio.Transport) -> int:
    connection = transport.get_extra_info("socket")
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
    except (AttributeError, OSError, ValueError):  # gone, or no socket
        return 0
    return int(count)


class Patient:
    """ASGI middleware: watches that answers are taken. Below ``Handover``, which takes streams out of its sight."""

    def __init__(self, app: ASGIApp, patience: Patience) -> None:
        self.app = app
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through."""
        transport = scope.get("extensions", {}).get(TRANSPORT)
        if transport is None:
            await self.app(scope, receive, send)
            return

        async def send_watched(message: Message) -> None:
            await send(message)
            if transport.get_write_buffer_size() > 0:
                self._patience.watch(transport)

        await self.app(scope, receive, send_watched)
