"""One board a process shows jobs to everybody who asks at once.

Whoever asks for a job while others are being read waits for the next round: one short transaction, in one thread,
answers all who had asked before it began. So an answer is never older than its question, a poll costs no thread, and
however many ask the database sees one of them. Only what has changed is read and written out anew.
"""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from epochd.api import conditional
from epochd.errors import EpochdError, ServiceUnavailableError
from epochd.jobs import view
from epochd.store import jobs
from epochd.store.database import Database
from epochd.store.jobs import JobRow

MEDIA_TYPE: Final = "application/json"
LAG_SECONDS: Final = 0.1
"""How old the text of a running job may be: `metrics_lag_seconds` grows while nothing changes."""
KEPT_SECONDS: Final = 10.0
KEPT_JOBS: Final = 1024
KEPT_BYTES: Final = 16_777_216


@dataclass(frozen=True, slots=True)
class Shown:
    """A job as it is stored, and as callers see it."""

    row: JobRow
    body: bytes
    headers: Mapping[str, str]
    written_at: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, row: JobRow) -> "Shown":
        """Write a job out."""
        body = view.to_job(row).model_dump_json().encode()
        return cls(row, body, conditional.headers_of(row, MEDIA_TYPE))

    def now(self) -> "Shown":
        """Give the same job as it is to be seen now."""
        grows = self.row.status == "running" and self.row.recorded_at is not None
        return Shown.of(self.row) if grows and time.monotonic() - self.written_at > LAG_SECONDS else self


class UnreadableJobError(EpochdError):
    """What is stored of a job cannot be shown: a mistake of the service, and one error for all who asked for it."""

    code = "internal_error"


Outcome = Shown | EpochdError


class JobBoard:
    """Reads jobs for all who wait on the event loop; its thread starts with the first of them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="board")
        self._asked: dict[str, list[asyncio.Future[Shown]]] = {}
        self._rounds: asyncio.Task[None] | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._closed = False
        self._kept = _Kept()  # belongs to the thread

    async def read(self, job_id: str) -> Shown:
        """Read a job as it is now, or becomes until this returns.

        Raises:
            NotFoundError: code ``job_not_found``.
            DatabaseUnavailableError: when the database does not answer.
            ServiceUnavailableError: when the board is closed, or is being closed meanwhile.

        """
        if self._closed:
            raise _ending()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Shown] = loop.create_future()
        self._asked.setdefault(job_id, []).append(future)
        if self._rounds is None:
            # It begins behind what the loop has to do already: requests that came together are answered together.
            self._rounds = loop.create_task(self._answer_all())
        return await future

    def close(self) -> None:
        """Let the thread end, and tell all who wait that nothing comes any more; on the event loop, or after it."""
        self._closed = True
        if self._forgetting is not None:
            self._forgetting.cancel()
        if self._rounds is not None and not self._rounds.get_loop().is_closed():
            self._rounds.cancel()
            # A task that never ran has nobody to tell those who wait for it.
            _settle_all(self._asked, _ending())
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _answer_all(self) -> None:
        try:
            while self._asked:
                await self._answer_round()
        finally:
            asked, self._asked, self._rounds = self._asked, {}, None
            _settle_all(asked, _ending())
        self._forget_later()

    async def _answer_round(self) -> None:
        asked, self._asked = self._asked, {}
        outcomes: Mapping[str, Outcome] = {}
        error: EpochdError = _ending()
        try:
            outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._look, list(asked))
        except EpochdError as failure:
            error = failure
        finally:  # cancelled, too
            for job_id, futures in asked.items():
                _settle(futures, outcomes.get(job_id, error))

    def _forget_later(self) -> None:
        if self._forgetting is None and not self._closed:
            self._forgetting = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget)

    def _forget(self) -> None:
        self._forgetting = None
        self._thread.submit(self._kept.drop_unused)
        if self._kept:
            self._forget_later()

    # From here on: the board's thread.

    def _look(self, job_ids: list[str]) -> Mapping[str, Outcome]:
        """Look at jobs; what the database refuses it refuses to all, anything else is the fault of one of them."""
        try:
            return self._look_at(job_ids)
        except EpochdError:
            raise
        except Exception as error:  # noqa: BLE001 - it is for those who wait
            if len(job_ids) == 1:
                return {job_ids[0]: _unreadable(job_ids[0], error)}
            return {job_id: self._look([job_id])[job_id] for job_id in job_ids}

    def _look_at(self, job_ids: list[str]) -> Mapping[str, Outcome]:
        with self._db.read() as tx:
            versions = jobs.versions(tx, job_ids)
            known = {job_id: self._kept.get(job_id, version) for job_id, version in versions.items()}
            changed = [job_id for job_id, shown in known.items() if shown is None]
            rows = jobs.several(tx, changed) if changed else []
        shown = {job_id: kept.now() for job_id, kept in known.items() if kept is not None}
        shown.update((row.id, Shown.of(row)) for row in rows)
        self._kept.keep(shown)
        return {job_id: shown.get(job_id) or jobs.not_found(job_id) for job_id in job_ids}


def _unreadable(job_id: str, error: Exception) -> UnreadableJobError:
    unreadable = UnreadableJobError(f"the job {job_id} cannot be shown")
    unreadable.__cause__ = error
    return unreadable


def _ending() -> ServiceUnavailableError:
    return ServiceUnavailableError("The service is about to end; ask again when it has started.")


def _settle_all(asked: Mapping[str, list[asyncio.Future[Shown]]], outcome: Outcome) -> None:
    for futures in asked.values():
        _settle(futures, outcome)


def _settle(futures: list[asyncio.Future[Shown]], outcome: Outcome) -> None:
    for future in futures:
        if future.done():
            continue  # whoever asked has left
        if isinstance(outcome, Shown):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)


class _Kept:
    """The jobs last shown, up to a number of jobs and bytes; those that nobody asks for any more are dropped."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[float, Shown]] = {}  # the one asked for longest ago comes first
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._shown)

    def get(self, job_id: str, version: int) -> Shown | None:
        """Give this version of a job, None when it is another, or none, that is kept."""
        _, shown = self._shown.get(job_id, (0.0, None))
        return shown if shown is not None and shown.row.version == version else None

    def keep(self, shown: Mapping[str, Shown]) -> None:
        """Keep jobs that were asked for now."""
        now = time.monotonic()
        for job_id, one in shown.items():
            self._drop(job_id)
            self._shown[job_id] = (now, one)
            self._bytes += len(one.body)
        while len(self._shown) > KEPT_JOBS or self._bytes > KEPT_BYTES:
            self._drop(next(iter(self._shown)))

    def drop_unused(self) -> None:
        """Drop what nobody has asked for lately."""
        since = time.monotonic() - KEPT_SECONDS
        for job_id in [job_id for job_id, (at, _) in self._shown.items() if at <= since]:
            self._drop(job_id)

    def _drop(self, job_id: str) -> None:
        if job_id in self._shown:
            _, shown = self._shown.pop(job_id)
            self._bytes -= len(shown.body)
