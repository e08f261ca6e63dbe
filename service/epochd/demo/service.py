"""The demo's own service: a free port, SQLite in a temporary directory, gone when the demo is."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx
from rich.console import Console

from epochd.errors import ServiceUnavailableError

START_SECONDS = 120.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.1


class DemoService:
    """``epochd serve`` as a child process; as a context it is started, ready, and stopped again."""

    def __init__(self, console: Console) -> None:
        self.url = ""
        self._console = console
        self._directory = tempfile.TemporaryDirectory(prefix="epochd-demo-", ignore_cleanup_errors=True)
        self._log = Path(self._directory.name) / "service.log"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start the service and wait until a worker is ready to train."""
        try:
            with self._console.status("starting the service"):
                self._process = self._spawn()
                self.url = self._read_url(self._process)
            self._tell(f"Service on {self.url}, SQLite in {self._directory.name}")
            with self._console.status("loading PyTorch in the worker, once for all jobs"):
                self._wait_until_ready(self._process)
            self._tell("Worker ready, PyTorch loaded")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the service and delete its data."""
        self._stop()

    def _tell(self, line: str) -> None:
        self._console.print(f"[green]✓[/green] {line}", soft_wrap=True)

    def _spawn(self) -> subprocess.Popen[str]:
        # The settings of a real service, its database before all, must not leak into the demo.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
        data_dir = str(Path(self._directory.name) / "data")
        flags = ["--host", "127.0.0.1", "--port", "0", "--data-dir", data_dir, "--log-level", "warning"]
        with self._log.open("w") as log:
            return subprocess.Popen(  # noqa: S603 - our own command, by our own interpreter
                [sys.executable, "-m", "epochd", "serve", *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                process_group=0,  # Ctrl-C is for the demo, which then ends the service in order
            )

    def _read_url(self, process: subprocess.Popen[str]) -> str:
        output: IO[str] = process.stdout  # type: ignore[assignment]  # it was asked for with PIPE
        for line in output:
            if address := re.fullmatch(r"\s*API\s+(http://\S+)\s*", line):
                return address.group(1)
        raise self._failure()

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while httpx.get(f"{self.url}/readyz", timeout=10).is_error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise self._failure()
            time.sleep(POLL_SECONDS)

    def _failure(self) -> ServiceUnavailableError:
        return ServiceUnavailableError(f"the service of the demo did not start:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of what the service logged."""
        return "\n".join(self._log.read_text().strip().splitlines()[-20:])

    def _stop(self) -> None:
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._directory.cleanup()
