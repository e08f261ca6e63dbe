"""Takes measurements of batch sizes, has each made apart, and stores what is found as it comes."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, Literal

from epochd.errors import DatabaseUnavailableError
from epochd.jobs import batch_size
from epochd.store import measurements
from epochd.store.database import Database, Transaction
from epochd.store.measurements import MeasurementRow
from epochd.worker.executors.local import LocalExecutor
from epochd.worker.follower import SlotConfig
from epochd.worker.measuring import MeasuringOrder, Message

log = logging.getLogger("epochd.worker")

REPORT_SECONDS: Final = 1.0
"""No lease is shorter than three of these; and so soon a cancellation is heard."""
Found = dict[str, Any]
"""What was measured: ``sizes`` and ``noise_scale``."""
Ended = Found | Literal["left"] | None
"""How measuring ended: with an error, because somebody left it, or well."""


class Measurer:
    """Measures on one device, until ``stopping`` is set."""

    def __init__(
        self,
        db: Database,
        executor: LocalExecutor,
        config: SlotConfig,
        device: str,
        stopping: threading.Event,
    ) -> None:
        self._db = db
        self._executor = executor
        self._config = config
        self._device = device
        self._stopping = stopping

    def measure_next(self) -> bool:
        """Make the next measurement that waits; False when there is none."""
        row = batch_size.claim(
            self._db,
            worker=self._config.worker,
            device=self._device,
            lease_seconds=self._config.lease_seconds,
            models=self._config.models,
        )
        if row is not None:
            log.info("%s: batch sizes are measured on %s", row.id, self._device)
            self._measure(row)
        return row is not None

    def _measure(self, row: MeasurementRow) -> None:
        """Measure for a row; without the database nothing is written, and its lease will expire."""
        ended = self.follow(row.spec, row.seconds, lambda found: self._record(row, found))
        if ended != "left":
            self._write(lambda tx: measurements.finish(tx, row, ended))
            log.info("%s: %s", row.id, "measured" if ended is None else ended["message"])
        elif self._stopping.is_set():
            self._write(lambda tx: measurements.give_back(tx, row))

    def follow(self, spec: dict[str, Any], seconds: float, report: Callable[[Found], bool]) -> Ended:
        """Measure, and report all that was found each time more is, and each second.

        It is left when the worker stops, and when ``report`` gives False.
        """
        found: Found = {"sizes": [], "noise_scale": None}
        reported = time.monotonic()
        with (
            self._executor.measure(self._order(spec, seconds)) as measuring,
            closing(measuring.messages()) as messages,
        ):
            for message in messages:
                if self._stopping.is_set():
                    return "left"
                if message is not None and message[0] in {"done", "error"}:
                    error: Found | None = message[1]
                    return error
                _take_in(found, message)
                if message is not None or time.monotonic() - reported > REPORT_SECONDS:
                    reported = time.monotonic()
                    if not report(found):
                        return "left"
        return None

    def _record(self, row: MeasurementRow, found: Found) -> bool:
        try:
            return self._write(
                lambda tx: measurements.record(tx, row, lease_seconds=self._config.lease_seconds, **found)
            )
        except DatabaseUnavailableError:
            return True  # whether it is still ours, the next write says

    def _write(self, write: Callable[[Transaction], bool]) -> bool:
        with self._db.write() as tx:
            return write(tx)

    def _order(self, spec: dict[str, Any], seconds: float) -> MeasuringOrder:
        config = self._config
        return MeasuringOrder(
            spec=spec,
            seconds=seconds,
            device=self._device,
            database_url=config.database_url,
            datasets=config.folders.datasets,
            artifacts=config.folders.artifacts,
            threads=config.threads,
            data_memory_bytes=config.data_memory_bytes,
            log_level=config.log_level,
        )


def _take_in(found: Found, message: Message | None) -> None:
    if message is not None and message[0] == "size":
        found["sizes"].append(message[1])
    elif message is not None:
        found["noise_scale"] = message[1]
