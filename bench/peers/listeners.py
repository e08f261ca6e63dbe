"""Many readers of one event stream, in a process of their own: plain sockets, and a clock."""

import multiprocessing
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

ID = re.compile(rb"(?:^|\n)id: ?([0-9]+(?:-[0-9]+)?)\r?\n")
AT_ONCE = 64
START_SECONDS = 120.0


@dataclass(frozen=True)
class Received:
    """What came: of every message its id and moment (``time.monotonic``), and all bytes."""

    messages: list[tuple[str, float]]
    bytes: int
    connections: int


class Listeners:
    """Readers that are all connected; ``stop`` gives what they have received."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def stop(self) -> Received:
        self._pipe.send(None)
        found = self._pipe.recv()
        assert isinstance(found, Received)
        return found


@contextmanager
def listening(port: int, path: str, count: int) -> Iterator[Listeners]:
    """Connect so many readers to a stream, and wait until the first byte of its body has come to each."""
    context: Any = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_listen, args=(theirs, port, path, count), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_SECONDS) or ours.recv() != count:
            raise SystemExit(f"not all of {count} readers got a stream of {path}")
        yield Listeners(ours)
    finally:
        process.kill()
        process.join()


class _Reader:
    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.rest = b""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        self.socket.sendall(request.encode())

    def take(self, moment: float, messages: list[tuple[str, float]]) -> int:
        data = self.socket.recv(1 << 18)
        text = self.rest + data
        end = text.rfind(b"\n") + 1
        messages.extend((found[1].decode(), moment) for found in ID.finditer(text, 0, end))
        self.rest = text[end:]
        return len(data)


def _listen(pipe: Connection, port: int, path: str, count: int) -> None:
    poll = select.epoll()
    readers: dict[int, _Reader] = {}
    silent: set[int] = set()
    messages: list[tuple[str, float]] = []
    total, told = 0, False
    while not pipe.poll():
        while len(readers) < count and len(silent) < AT_ONCE:
            reader = _Reader(port, path)
            readers[reader.socket.fileno()] = reader
            silent.add(reader.socket.fileno())
            poll.register(reader.socket.fileno(), select.EPOLLIN)
        for number, _ in poll.poll(0.02):
            taken = readers[number].take(time.monotonic(), messages)
            if not taken:
                poll.unregister(number)
            total += taken
            silent.discard(number)
        if len(readers) == count and not silent and not told:
            told = True
            pipe.send(count)
    pipe.send(Received(messages, total, len(readers)))
