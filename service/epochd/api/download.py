"""Files that are made while they are sent: part by part, as fast as the client takes them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Annotated, Final

from fastapi import Depends, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from epochd.api.protocol import TRANSPORT
from epochd.api.threads import FewThreads
from epochd.errors import EpochdError

log = logging.getLogger("epochd.api")

PARTS_AT_ONCE: Final = 4


class FileThreads(FewThreads):
    """Where parts of files are made."""

    def __init__(self, parts_at_once: int = PARTS_AT_ONCE) -> None:
        super().__init__(parts_at_once)


async def get_file_threads(request: Request) -> FileThreads:
    """Give those of this process."""
    threads = request.app.state.file_threads
    assert isinstance(threads, FileThreads)
    return threads


FileThreadsDep = Annotated[FileThreads, Depends(get_file_threads)]


class Download(StreamingResponse):
    """A file of unknown length.

    Make it in a thread of ``threads``: it takes the first chunk at once, so that what goes wrong until then is
    answered as an error. Each further chunk is made when the one before was sent; in between it holds no thread and,
    if ``chunks`` does not, nothing else. When one cannot be made, the connection ends without the mark that ends a
    complete answer, and the client knows that the file is torn.
    """

    _transport: asyncio.Transport | None = None

    def __init__(
        self,
        chunks: Iterator[bytes],
        threads: FileThreads,
        *,
        filename: str,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        first = next(chunks, b"")
        disposition = {"Content-Disposition": f'attachment; filename="{filename}"'}
        super().__init__(
            _sent(first, chunks, threads), headers={**headers, **disposition}, media_type=media_type
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        self._transport = scope.get("extensions", {}).get(TRANSPORT)
        await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send it, or as much as can be made."""
        try:
            await super().stream_response(send)
        except EpochdError as error:
            log.warning("a download was cut off: %s", error.message)
            self._cut()
        except Exception:
            log.exception("a download was cut off")
            self._cut()

    def _cut(self) -> None:
        # An answer that returns without its last message makes any server close the connection, when the client has
        # taken what is there; here it need not wait for that.
        if self._transport is not None:
            self._transport.abort()


async def _sent(first: bytes, chunks: Iterator[bytes], threads: FileThreads) -> AsyncGenerator[bytes]:
    yield first
    while (chunk := await threads.run(next, chunks, None)) is not None:
        yield chunk
