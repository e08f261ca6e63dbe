"""An answer that is an event stream, and whoever listens to it, or does not, or has gone.

Thousands of them are open at once and silent, so each is one coroutine and one that waits for its end, and nothing of
the request that began it is kept.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from epochd.api.protocol import TRANSPORT
from epochd.api.sleeper import Sleeper

LOOKS_A_PATIENCE: Final = 4
CLOSING_PATIENCE_SECONDS: Final = 1.0
ENDING_LOOK_SECONDS: Final = 0.25
_HANDOVER: Final = "epochd.handover"
_OF_THE_SERVER: Final = frozenset({"type", "method", "http_version", "extensions"})


class Listener(Sleeper):
    """Takes bytes. Wakes when it has gone, when it has got nothing for ``heartbeat`` seconds, and when it is slow.

    ``slow``: bytes have waited for ``patience`` seconds and it has taken none of them. What it is sent then should be
    the last; should it take nothing for as long again, the connection is aborted. So it is, too, when the stream has
    ended and it has not taken the rest within ``patience`` seconds, however busily it takes it.
    """

    __slots__ = (
        "_deadline",
        "_heartbeat",
        "_left",
        "_loop",
        "_patience",
        "_send",
        "_sending",
        "_sent_at",
        "_taken_at",
        "_timer",
        "_transport",
        "_understands_chunks",
        "gone",
        "slow",
    )

    def __init__(self, scope: Scope, send: Send, *, heartbeat: float, patience: float) -> None:
        super().__init__()
        self.gone = self.slow = False
        self._send = send
        self._transport: asyncio.Transport | None = scope.get("extensions", {}).get(TRANSPORT)
        self._understands_chunks = scope["http_version"] == "1.1"
        # Those who have got their last message together are not all sent a comment together.
        self._heartbeat = heartbeat * random.uniform(0.8, 1)  # noqa: S311 - no secret
        self._patience = patience
        self._deadline = math.inf
        self._loop = asyncio.get_running_loop()
        self._sending = False
        self._left = 0
        self._sent_at = self._taken_at = self._loop.time()
        self._timer = self._loop.call_later(self._until_next_look(), self._look)

    @property
    def silent(self) -> bool:
        """Whether it is time for a heartbeat."""
        return self._loop.time() - self._sent_at >= self._heartbeat

    async def send(self, data: bytes, *, more: bool = True) -> None:
        """Send bytes, as soon as the listener has taken most of what came before them."""
        self._note()
        self._sending = True
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self._sending = False
        self._sent_at = self._loop.time()
        self._left = self._waiting()

    def pass_on(self, chunk: bytes) -> bool:
        """Send a chunk of HTTP as it is, at once; False when its coroutine has to ``send`` the bytes instead.

        A thousand coroutines that wake up, and a thousand messages to the server, take longer than all else there is
        to do for an event. Those whose coroutine sleeps, and who have taken everything, need neither.
        """
        transport = self._transport
        if transport is None or not (self._understands_chunks and self.asleep):
            return False
        if transport.get_write_buffer_size() or transport.is_closing():
            return False
        transport.write(chunk)
        self._sent_at = self._taken_at = self._loop.time()
        self._left = transport.get_write_buffer_size()
        return True

    async def end(self, last: bytes = b"") -> None:
        """End the stream, and wait until the listener has taken the rest, or time is up."""
        self._deadline = self._loop.time() + self._patience
        self._look_soon()
        await self.send(last, more=False)
        while self._waiting():
            await self.sleep()

    def close(self) -> None:
        """Wake it for the last time, and do not wait long for it to take what is left."""
        self._patience = min(self._patience, CLOSING_PATIENCE_SECONDS)
        self._deadline = min(self._deadline, self._loop.time() + CLOSING_PATIENCE_SECONDS)
        self._look_soon()
        self.wake()

    async def listen(self, receive: Receive) -> None:
        """Wait until the listener has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.wake()

    def leave(self) -> None:
        """Let go of it."""
        self._timer.cancel()

    def _waiting(self) -> int:
        if self._transport is None:
            return int(self._sending)
        return self._transport.get_write_buffer_size()

    def _note(self) -> None:
        """Remember when it has last taken something."""
        left = self._waiting()
        if left == 0 or left < self._left:
            self._taken_at = self._loop.time()
        self._left = left

    def _until_next_look(self) -> float:
        heartbeat = self._sent_at + self._heartbeat - self._loop.time()
        seconds = min(heartbeat if heartbeat > 0 else self._heartbeat, self._patience / LOOKS_A_PATIENCE)
        return min(seconds, ENDING_LOOK_SECONDS) if self._deadline < math.inf else seconds

    def _look_soon(self) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(self._until_next_look(), self._look)

    def _look(self) -> None:
        self._note()
        now = self._loop.time()
        stalled = now - self._taken_at
        self.slow = self.slow or stalled >= self._patience
        if (
            self._transport is not None
            and self._left
            and (stalled >= 2 * self._patience or now >= self._deadline)
        ):
            self._transport.abort()
        if self.slow or self.silent or self._deadline < math.inf:
            self.wake()
        self._look_soon()


Tell = Callable[[Listener], Awaitable[None]]


class EventStream(Response):
    """An answer that goes on and on: ``tell`` sends it to its end, and returns early when the listener is ``gone``."""

    def __init__(self, tell: Tell, headers: Mapping[str, str], *, heartbeat: float, patience: float) -> None:
        # The connection is not used again: with a listener that does not take the end, it has to be given up.
        super().__init__(headers={**headers, "Connection": "close"}, media_type="text/event-stream")
        del self.headers["content-length"]
        self._tell = tell
        self._limits = {"heartbeat": heartbeat, "patience": patience}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin the answer, and leave the rest of it to ``Handover``, when it is there."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if _HANDOVER in scope:
            scope[_HANDOVER].append((self._tell, self._limits))
        else:
            await _converse(self._tell, self._limits, scope, receive, send)


class Handover:
    """ASGI middleware: streams go on from here, when everything that has answered the request is gone from memory."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through."""
        streams: list[tuple[Tell, dict[str, float]]] = []
        scope[_HANDOVER] = streams
        await self.app(scope, receive, send)
        if streams:
            tell, limits = streams.pop()
            _forget(scope)
            await _converse(tell, limits, scope, receive, send)


def _forget(scope: Scope) -> None:
    """Drop what is known of a request but for what the server and a stream go on asking for."""
    for name in [name for name in scope if name not in _OF_THE_SERVER]:
        del scope[name]


async def _converse(tell: Tell, limits: dict[str, float], scope: Scope, receive: Receive, send: Send) -> None:
    listener = Listener(scope, send, **limits)
    listening: asyncio.Task[Any] = asyncio.create_task(listener.listen(receive))
    try:
        await tell(listener)
    finally:
        listening.cancel()
        listener.leave()
