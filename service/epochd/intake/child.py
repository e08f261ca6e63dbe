"""Has a data set read in a process of its own: its memory is bounded, and it can be killed at any moment."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from epochd.errors import InvalidDatasetError, ServiceUnavailableError
from epochd.intake import answer
from epochd.intake.order import Order

log = logging.getLogger("epochd.intake")

_LOG: Final = "log"
_LOGGED_CHARACTERS: Final = 4000
_ENDING_SECONDS: Final = 10.0
_MEMORY_FRACTION: Final = 0.5
LEAST_MEMORY_BYTES: Final = 2**30
"""Of which the libraries take a quarter."""
_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Read:
    """A data set that was read, JSON-ready: the fields of ``datasets.ingest.Ingested``, and of the file."""

    info: dict[str, Any]
    format: str
    preview: dict[str, Any]
    notes: list[dict[str, str]]
    digest: str
    bytes: int
    file_bytes: int
    file_name: str


def memory_bytes() -> int:
    """How much memory reading may take: half of what this machine, or its container, has."""
    total = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit
        total = min(total, int(_CGROUP_LIMIT.read_text()))
    return int(total * _MEMORY_FRACTION)


async def read(order: Order, lock: int) -> Read:
    """Carry out an order. ``lock`` keeps its folder, also while the process is still there that reads.

    Cancelled, it kills the process. Raises ``InvalidDatasetError``, ``InsufficientStorageError``,
    ``PayloadTooLargeError``, ``ServiceUnavailableError``, and ``UnexpectedError`` for a mistake of the code.
    """
    with (order.folder / _LOG).open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "epochd.intake",
            stdin=PIPE, stdout=PIPE, stderr=errors, pass_fds=[lock], env=_environment(), process_group=0,
            limit=2**30,
        )  # fmt: skip
    try:
        line = await _answer(process, order)
        if not line:  # it is about to end: how it does tells why
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _ENDING_SECONDS)
    finally:
        if process.returncode is None:
            # Not `process.kill()`: that reaps a process which has just ended, and asyncio never learns how.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    if not line:
        raise _died(process.returncode or 0, order.folder)
    values = json.loads(line)
    if "error" in values:
        error = answer.error_of(values["error"])
        if isinstance(error, answer.UnexpectedError):
            log.error("a data set could not be read:\n%s", _logged(order.folder))
        raise error
    return Read(**values["dataset"])


async def _answer(process: Process, order: Order) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(order.as_json().encode() + b"\n")
    line = await process.stdout.readline()
    return line if line.endswith(b"\n") else b""


def _environment() -> dict[str, str]:
    # Neither API keys nor the database's password are its business.
    return {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}


def _died(code: int, folder: Path) -> InvalidDatasetError | ServiceUnavailableError:
    log.error("the process that read a data set ended with %d:\n%s", code, _logged(folder))
    if code == -signal.SIGKILL:
        return ServiceUnavailableError(
            "The process that read the file was killed, perhaps because the machine has too little memory for it; try "
            "again later, or send a smaller file.",
            code="reader_killed",
        )
    if "memory allocation of" in _logged(folder):
        return answer.too_much_memory()
    return InvalidDatasetError(
        "The library that reads such files crashed on this one: it is damaged, or holds something unusual. Write it "
        "anew, or send it in another format.",
        "unreadable_file",
    )


def _logged(folder: Path) -> str:
    return (folder / _LOG).read_text(errors="replace")[-_LOGGED_CHARACTERS:]
