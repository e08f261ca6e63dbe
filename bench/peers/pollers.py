"""A load generator for one URL: so many connections that are kept alive, each asking again as soon as it is answered.

    python bench/peers/pollers.py http://127.0.0.1:8000/v1/jobs/job_… --connections 32 --seconds 5

A process of its own, asyncio's raw transports and the parser of httptools: one request costs it a few tens of
microseconds. Prints one line of JSON: answers, seconds, statuses, and each latency in seconds.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from urllib.parse import urlsplit

import httptools


class Poller(asyncio.Protocol):
    """One connection. Only answers that come between ``begin`` and ``end`` count."""

    def __init__(self, request: bytes, begin: float, end: float) -> None:
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self._request = request
        self._begin, self._end = begin, end
        self._asked_at = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        if self._begin <= now <= self._end:
            self.latencies.append(now - self._asked_at)
            self.statuses[self._parser.get_status_code()] += 1
        if now > self._end:
            self._transport.close()
        else:
            self._parser = httptools.HttpResponseParser(self)
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(error)

    def _ask(self) -> None:
        self._asked_at = time.perf_counter()
        self._transport.write(self._request)


async def poll(url: str, connections: int, seconds: float, warm_up: float) -> list[Poller]:
    """Load a URL and return all connections with what they measured."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n\r\n".encode()
    begin = time.perf_counter() + warm_up
    loop, pollers = asyncio.get_running_loop(), []
    for _ in range(connections):
        _, poller = await loop.create_connection(lambda: Poller(request, begin, begin + seconds), host, port)
        pollers.append(poller)
    await asyncio.gather(*(poller.done for poller in pollers))
    return pollers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=0.5)
    options = parser.parse_args()
    pollers = asyncio.run(poll(options.url, options.connections, options.seconds, options.warm_up))
    latencies = [latency for poller in pollers for latency in poller.latencies]
    statuses = sum((poller.statuses for poller in pollers), Counter())
    print(json.dumps({"seconds": options.seconds, "statuses": statuses, "latencies": latencies}))


if __name__ == "__main__":
    main()
