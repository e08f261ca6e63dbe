"""Batch sizes measured in a process of its own: whatever becomes of that, the worker goes on."""

import logging
import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Final, Literal, Self

from epochd.errors import InfrastructureError, OutOfMemoryError, TrainingError
from epochd.jobs.complete import error_dict
from epochd.training.batch_size_choice import BatchSizeMeasured
from epochd.worker.entry import stay_with_worker

log = logging.getLogger("epochd.worker")

PATIENCE_SECONDS: Final = 300.0
"""For what comes beside the measuring: data to be read, and an iteration that takes long."""
POLL_SECONDS: Final = 0.25

Message = tuple[Literal["size", "noise", "error", "done"], Any]
"""What the measuring process says: JSON-ready values."""


@dataclass(frozen=True, slots=True)
class MeasuringOrder:
    """What is to be measured, on which device. Plain data: it travels between processes."""

    spec: dict[str, Any]
    seconds: float
    device: str
    database_url: str
    datasets: Path
    artifacts: Path
    threads: int
    data_memory_bytes: int
    log_level: str


class Measuring:
    """A process that measures; within ``with``, at whose end it is gone."""

    def __init__(self, context: ForkServerContext, order: MeasuringOrder) -> None:
        self._order = order
        self._deadline = time.monotonic() + order.seconds + PATIENCE_SECONDS
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=measure_apart, args=(order, sender), name="epochd-measuring")
        self._process.start()
        # With the only other end in the child, its death reads as end of file.
        sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._receiver.close()

    def messages(self) -> Generator[Message | None]:
        """Give what is found as it comes, and None now and then while nothing does; the last one is done, or an error.

        A process that dies after it measured a size has most likely lacked memory: the next size does not fit.
        """
        last = 0
        try:
            while (message := self._next()) is None or message[0] in {"size", "noise"}:
                last = message[1]["batch_size"] if message and message[0] == "size" else last
                yield message
            yield message
        except (EOFError, OSError):
            self._process.join()
            yield from self._after_death(last)

    def _next(self) -> Message | None:
        if time.monotonic() > self._deadline:
            return "error", error_dict(_too_slow(self._order))
        return self._receiver.recv() if self._receiver.poll(POLL_SECONDS) else None

    def _after_death(self, last: int) -> Iterator[Message]:
        code = self._process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        if not last:
            yield "error", error_dict(_died_at_once(how))
            return
        yield (
            "size",
            _not_fitting(2 * last, f"the process that tried it {how}, most likely for want of memory."),
        )
        yield "done", None


def _not_fitting(size: int, reason: str) -> dict[str, Any]:
    return BatchSizeMeasured(size, fits=False, reason=reason).as_dict()


def _too_slow(order: MeasuringOrder) -> TrainingError:
    return InfrastructureError(
        f"Measuring was to take {order.seconds:g} s, and was given up {PATIENCE_SECONDS:g} s later.",
        code="measuring_too_slow",
    )


def _died_at_once(how: str) -> TrainingError:
    return OutOfMemoryError(
        f"The measuring process {how} before it had measured a single batch size, most likely for want of memory: take "
        "a smaller model, or a larger machine."
    )


def measure_apart(order: MeasuringOrder, connection: Connection) -> None:
    """Measure in this process, which is for nothing else, and report on ``connection``."""
    _settle_in(order)
    try:
        for message in _measured(order):
            connection.send(message)
    except TrainingError as error:
        connection.send(("error", error_dict(error)))
    except Exception:
        log.exception("measuring batch sizes failed")
        told = "Unexpected error in the worker; its log has the details."
        connection.send(("error", error_dict(InfrastructureError(told, code="internal_error"))))
    else:
        connection.send(("done", None))
    connection.close()
    logging.shutdown()
    os._exit(0)


def _settle_in(order: MeasuringOrder) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the worker ends this process, when it wants to
    with suppress(OSError):  # where the system cannot be told: when memory is short, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    stay_with_worker(order.log_level)


def _measured(order: MeasuringOrder) -> Iterator[Message]:
    # Loaded by the fork server, not by the worker.
    from epochd.worker.measured import sizes_and_noise  # noqa: PLC0415

    yield from sizes_and_noise(order)
