"""Uvicorn's protocol, which lets an answer see whether its reader takes it, and break with one that does not."""

from typing import Final

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

TRANSPORT: Final = "epochd.transport"
"""The ASGI extension under which an answer finds the ``asyncio.Transport`` that it is written to."""


def chunk_of(data: bytes) -> bytes:
    """Write bytes, of which there are some, as a chunk of an HTTP/1.1 answer."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with the extension ``TRANSPORT``; to HTTP/1.0 answers of unknown length come without chunks."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            self.cycle.send = _WithoutChunks(self.cycle).send  # type: ignore[method-assign,assignment]


class _WithoutChunks:
    """Sends an answer whose length nobody knows to one who knows no chunks: it ends with the connection."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._endless = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._endless = all(name.lower() != b"content-length" for name, _ in message["headers"])
            self._cycle.chunked_encoding = False if self._endless else None
        elif self._endless:
            self._cycle.expected_content_length = len(message.get("body", b""))
        await self._send(message)  # type: ignore[arg-type]
