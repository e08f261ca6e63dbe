"""The server of one process: Uvicorn around the application, and how it begins and ends."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from epochd.api.app import create_app
from epochd.api.protocol import Protocol
from epochd.lifeline import exit_at_last
from epochd.settings import Settings

BACKLOG = 2048
LAST_SECONDS = 2.0


class Server(uvicorn.Server):
    """Uvicorn that says when it listens, ends open streams when told to stop, and exits with code 0."""

    def __init__(self, settings: Settings, *, on_started: Callable[[], None] = lambda: None) -> None:
        app = create_app(settings)
        super().__init__(_config(app, settings))
        self._feed = app.state.feed
        self._patience = app.state.patience
        self._shutdown_seconds = settings.shutdown_seconds
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of uvicorn
        """Begin to end, in a signal handler."""
        # Not the inherited one: it raises the signal again at the end, and the exit code would tell a crash.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        asyncio.get_running_loop().call_soon_threadsafe(self._on_exit)

    def _on_exit(self) -> None:
        exit_at_last(2 * self._shutdown_seconds + LAST_SECONDS)
        self._feed.close()
        self._patience.close()


class SharedListener(socket.socket):
    """A listening socket that other processes listen on, too: a burst of connections is spread over all of them.

    asyncio accepts what has come until nothing is left. Here every second call says that nothing is, so that it turns
    to the connections it has, and whoever is idle takes the next.
    """

    _may_accept = False

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept one connection at every other call."""
        self._may_accept = not self._may_accept
        if not self._may_accept:
            raise BlockingIOError
        return super().accept()


def configure_logging(level: str) -> None:
    """Log to standard error, each line with its time and level."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    if level != "debug":
        for chatty in ("uvicorn.error", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=settings.log_level == "debug",
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
    )
