"""``epochd serve``: migrations, API and workers as one tree of processes that leaves nothing behind."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from types import FrameType

import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.markup import escape

from epochd import __version__
from epochd.api.app import create_app
from epochd.preflight import BACKLOG, bind, migrate, prepare_data_dir, refuse_open_door
from epochd.settings import Settings
from epochd.worker.deadline import exit_at_last
from epochd.worker.supervisor import WorkerSupervisor

LAST_SECONDS = 2.0


def serve(settings: Settings) -> None:
    """Run until SIGTERM or Ctrl-C.

    Raises ConfigurationError for an address or directory that cannot be used, and DatabaseUnavailableError.
    """
    refuse_open_door(settings)
    prepare_data_dir(settings)
    _configure_logging(settings.log_level)
    signal.signal(signal.SIGTERM, _leave)
    with ExitStack() as on_the_way_out:
        listener = on_the_way_out.enter_context(closing(bind(settings.host, settings.port)))
        schema = migrate(settings)
        app = create_app(settings)

        def on_started() -> None:
            workers = WorkerSupervisor(settings)
            on_the_way_out.callback(_stop, workers)
            workers.start()
            _announce(settings, schema, listener)

        def on_exit() -> None:
            exit_at_last(2 * settings.shutdown_seconds + LAST_SECONDS)
            app.state.feed.close()

        server = _Server(_config(app, settings), on_started=on_started, on_exit=on_exit)
        server.run([listener])
    _say("[dim]epochd has stopped.[/dim]")


def _stop(workers: WorkerSupervisor) -> None:
    # A second SIGTERM must not cut the workers' clean end short; a second Ctrl-C may.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    workers.stop()


class _Server(uvicorn.Server):
    """Uvicorn that says when it listens, ends open streams when told to stop, and exits with code 0."""

    def __init__(
        self, config: uvicorn.Config, *, on_started: Callable[[], None], on_exit: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._on_exit = on_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of uvicorn
        # Not the inherited one: it raises the signal again at the end, and the exit code would tell a crash.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        asyncio.get_running_loop().call_soon_threadsafe(self._on_exit)


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=settings.log_level == "debug",
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
    )


def _announce(settings: Settings, schema: str, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    keys = len(settings.accepted_api_keys)
    lines = {
        "database": schema,
        "data": str(settings.data_dir.resolve()),
        "workers": f"{settings.workers} on {settings.device}"
        if settings.workers
        else "none here: `epochd worker`",
        "API keys": str(keys)
        if keys
        else "none, so loopback only"
        if not settings.insecure
        else "none: open to all",
        "docs": f"{url}/docs",
        "API": url,
    }
    _say(f"[bold]epochd {__version__}[/bold]")
    for name, value in lines.items():
        _say(f"  [dim]{name:<9}[/dim] {escape(value)}")


def _say(line: str) -> None:
    Console(highlight=False, soft_wrap=True).print(line)
    sys.stdout.flush()


def _configure_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    if level != "debug":
        for chatty in ("uvicorn.error", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
