"""``epochd serve``: migrations, API and workers as one tree of processes that leaves nothing behind.

This process takes the address and migrates the database. Then it is the API itself; or, with ``--api-workers N``, it
starts N processes that are, all of them listening on the socket that they inherit. Workers are always processes of
their own. Each child ends when its standard input does, so none outlives this process, however that ends.
"""

import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.markup import escape

from epochd.api.server import BACKLOG, LAST_SECONDS, Server, configure_logging
from epochd.api.shared_directory import shared_directory
from epochd.lifeline import exit_at_last
from epochd.preflight import (
    allow_many_connections,
    bind,
    claim_artifacts,
    migrate,
    prepare_data_dir,
    prepare_mirrors,
    refuse_open_door,
)
from epochd.settings import Settings
from epochd.supervisor import Child, Supervisor
from epochd.version import __version__

A_LONG_TIME_SECONDS = 86_400.0
API_MARGIN_SECONDS: Final = 10.0
"""How long an API process may take to close all that it has, after ``shutdown_seconds`` for requests under way."""


def serve(settings: Settings) -> None:
    """Run until SIGTERM or Ctrl-C.

    Raises ConfigurationError for an address or directory that cannot be used, and DatabaseUnavailableError.
    """
    refuse_open_door(settings)
    prepare_data_dir(settings)
    prepare_mirrors(settings)
    configure_logging(settings.log_level)
    allow_many_connections()
    signal.signal(signal.SIGTERM, _leave)
    with ExitStack() as on_the_way_out:
        listener = on_the_way_out.enter_context(closing(bind(settings.host, settings.port, BACKLOG)))
        schema = migrate(settings)
        claim_artifacts(settings)

        def on_started() -> None:
            workers = Supervisor(
                "worker supervisor", [*_workers(settings), *_mirrors(settings)], settings.shutdown_seconds
            )
            on_the_way_out.callback(_stop, workers)
            workers.start()
            _announce(settings, schema, listener)

        answer = _answer_here if settings.api_workers == 1 else _answer_in_processes
        answer(settings, listener, on_started)
    _say("[dim]epochd has stopped.[/dim]")


def _answer_here(settings: Settings, listener: socket.socket, on_started: Callable[[], None]) -> None:
    Server(settings, on_started=on_started).run([listener])


def _answer_in_processes(settings: Settings, listener: socket.socket, on_started: Callable[[], None]) -> None:
    with ExitStack() as on_the_way_out:
        # Where they keep what `GET /metrics` adds up.
        numbers = on_the_way_out.enter_context(shared_directory(settings.data_dir))
        patience = settings.shutdown_seconds + API_MARGIN_SECONDS
        apis = Supervisor("API supervisor", _apis(settings, listener, numbers), patience)
        on_the_way_out.callback(_stop, apis)
        apis.start()
        on_started()
        _wait_for_a_signal()
        # Each process closes its own: whoever comes now is refused, and does not wait for an answer that never comes.
        listener.close()
        exit_at_last(patience + settings.shutdown_seconds + LAST_SECONDS)


def _wait_for_a_signal() -> None:
    try:
        while True:
            time.sleep(A_LONG_TIME_SECONDS)
    except (SystemExit, KeyboardInterrupt):
        return


def _workers(settings: Settings) -> list[Child]:
    count, environment = settings.workers, settings.environment()
    return [
        Child(f"worker {index}", ["-m", "epochd.worker", str(index), str(count)], environment)
        for index in range(count)
    ]


def _mirrors(settings: Settings) -> list[Child]:
    if settings.mirror_tensorboard is None and settings.mirror_mlflow is None:
        return []
    # It may hold a password, so nobody else gets it.
    server = {} if settings.mirror_mlflow is None else {"EPOCHD_MIRROR_MLFLOW": settings.mirror_mlflow}
    return [Child("mirror", ["-m", "epochd.mirror"], {**settings.environment(), **server})]


def _apis(settings: Settings, listener: socket.socket, numbers: Path) -> list[Child]:
    # Not on the command line, which everybody on the machine can read.
    keys = {"EPOCHD_API_KEYS": settings.api_keys.get_secret_value()}
    environment = {**settings.environment(), **keys}
    descriptor = listener.fileno()
    arguments = ["-m", "epochd.api", str(descriptor), str(numbers.resolve())]
    return [
        Child(f"API process {index}", arguments, environment, [descriptor])
        for index in range(settings.api_workers)
    ]


def _stop(children: Supervisor) -> None:
    # A second SIGTERM must not cut the children's clean end short; a second Ctrl-C may.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    children.stop()


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
        "mirrors": ", ".join(_mirrored(settings)),
        "dashboard": f"{url}/",
        "docs": f"{url}/docs",
        "API": url,
    }
    _say(f"[bold]epochd {__version__}[/bold]")
    for name, value in lines.items():
        if not value:
            continue
        _say(f"  [dim]{name:<9}[/dim] {escape(value)}")


def _mirrored(settings: Settings) -> list[str]:
    directory, server = settings.mirror_tensorboard, settings.shown_mirror_mlflow
    named = {"TensorBoard in": directory and directory.resolve(), "MLflow at": server}
    return [f"{name} {place}" for name, place in named.items() if place]


def _say(line: str) -> None:
    Console(highlight=False, soft_wrap=True).print(line)
    sys.stdout.flush()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
