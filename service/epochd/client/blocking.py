"""The client that waits for each answer."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import PrivateAttr

from epochd.client import operations
from epochd.client.calls import Flow, Pause, Step, T
from epochd.client.connection import options
from epochd.client.events import ServerSentEvent, read_events
from epochd.client.html import as_html
from epochd.client.operations import Spec
from epochd.client.receiving import Receiving
from epochd.client.series import Series
from epochd.contract import job as wire
from epochd.contract.batch_size import BatchSizeMeasurement
from epochd.contract.compare import Comparison
from epochd.contract.datasets import Dataset, DatasetSummary
from epochd.contract.model_list import ModelDescription
from epochd.contract.what_if import WhatIf
from epochd.contract.worker_list import Worker
from epochd.errors import ServiceUnavailableError


class Client:
    """A service at ``url``; ``key`` is an API key where the service wants one (EPOCHD_URL and EPOCHD_KEY by default).

    Every call is tried again while the service is away, a resent ``submit`` never trains twice, and all errors are
    ``EpochdError``. Threads may share one. Close it, or use it in a ``with``.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._http = httpx.Client(**options(url, key), transport=transport)
        self.jobs = Jobs(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def carry_out(self, flow: Flow[T]) -> T:
        """Carry out a flow of ``operations`` to its end."""
        try:
            step = next(flow)
            while True:
                try:
                    answer = self._take(step)
                except httpx.TransportError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    def _take(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        with step.opened() as file:
            return self._http.send(step.request(self._http, file))

    def compare(
        self, jobs: Sequence[str], *, metric: str | None = None, target: float | None = None
    ) -> Comparison:
        """Put 2 to 20 jobs side by side."""
        return self.carry_out(operations.compare(jobs, metric, target))

    def models(self) -> list[ModelDescription]:
        """List what can be trained."""
        return self.carry_out(operations.models()).data

    def workers(self) -> list[Worker]:
        """List who trains, on which devices, and what runs there."""
        return self.carry_out(operations.workers()).data

    def upload(self, file: str | Path, **fields: str | Sequence[str]) -> Dataset:
        """Bring a data set: the ``file``, and by name whatever is not to be inferred (``name``, ``target``, …).

        Sent again after a lost answer, it makes no second one.
        """
        return self.carry_out(operations.upload(Path(file), fields))

    def datasets(self) -> Iterator[DatasetSummary]:
        """List the data sets that were brought, the newest first."""
        after = None
        while True:
            page = self.carry_out(operations.datasets(100, after))
            yield from page.data
            if (after := page.next) is None:
                return

    def batch_size(self, *, timeout: float | None = None, **asked: Any) -> BatchSizeMeasurement:
        """Measure batch sizes for a ``dataset`` and ``model``. Raises TimeoutError after ``timeout`` seconds."""
        return self.carry_out(operations.batch_size(asked, timeout))


class Job(wire.Job):
    """A job as it was when it was read, and what can be done with it; each answer is a new one."""

    _client: Client = PrivateAttr()

    @classmethod
    def of(cls, client: Client, found: wire.Job) -> "Job":
        """Give what the service answered to a client."""
        made = cls.model_construct(**dict(found))
        made._client = client  # noqa: SLF001 - its own
        return made

    def _do(self, flow: Flow[wire.Job]) -> "Job":
        return Job.of(self._client, self._client.carry_out(flow))

    def refresh(self) -> "Job":
        """Read it again."""
        return self._do(operations.job(self.id))

    def wait(self, timeout: float | None = None) -> "Job":
        """Wait until it is done, whatever its end is. Raises TimeoutError after ``timeout`` seconds; it goes on."""
        return self._do(operations.wait(self.id, timeout))

    def cancel(self, keep: wire.Keep = "best", *, grace_seconds: float = 30) -> "Job":
        """End it, and keep the weights that ``keep`` names."""
        return self._do(operations.act(self.id, "cancel", {"keep": keep, "grace_seconds": grace_seconds}))

    def pause(self) -> "Job":
        """Free its device; ``resume`` goes on exactly there."""
        return self._do(operations.act(self.id, "pause"))

    def resume(self) -> "Job":
        """Go on after a pause."""
        return self._do(operations.act(self.id, "resume"))

    def retry(self, source: wire.RetrySource = "checkpoint") -> "Job":
        """Try a failed or cancelled job again."""
        return self._do(operations.act(self.id, "retry", {"from": source}))

    def amend(self, **changes: Any) -> "Job":
        """Change name, tags, priority, epochs, optimizer.learning_rate or early_stopping while it is not done."""
        return self._do(operations.amend(self.id, changes))

    def delete(self) -> None:
        """Remove a job that is done, with all that it recorded."""
        self._client.carry_out(operations.delete(self.id))

    def stream(self, *, iterations: bool = False, last_event_id: str = "") -> Iterator[ServerSentEvent]:
        """Yield its events as they come, until it is done, without a gap or a repeat through lost connections."""
        params = {"iterations": "true"} if iterations else None
        url = f"/v1/jobs/{self.id}/events"
        return read_events(self._client._http, url, params=params, last_event_id=last_event_id)  # noqa: SLF001

    def iterations(
        self,
        *,
        points: int | None = None,
        fields: Sequence[str] = (),
        after: int = 0,
        up_to: int | None = None,
    ) -> Series:
        """Read what each iteration beyond ``after`` up to ``up_to`` recorded; in at most ``points``, extremes kept."""
        return Series(self._client.carry_out(operations.iterations(self.id, points, fields, after, up_to)))

    def epochs(self) -> Series:
        """Read what each epoch recorded."""
        return Series.of_rows(self._client.carry_out(operations.epochs(self.id)))

    def diagnose(self) -> wire.JobDiagnosis:
        """Read what its curves say, and what to change."""
        return self._client.carry_out(operations.diagnosis(self.id))

    def what_if(self, **policy: Any) -> WhatIf:
        """Replay other early-stopping policies over its epochs."""
        return self._client.carry_out(operations.what_if(self.id, policy))

    def artifacts(self) -> list[wire.Artifact]:
        """List the files that it left."""
        return self._client.carry_out(operations.artifacts(self.id)).data

    def download(self, directory: str | Path = ".", names: Sequence[str] | None = None) -> list[Path]:
        """Fetch its files, or those named, into a directory; each is checked before it is put there."""
        wanted = [one for one in self.artifacts() if names is None or one.name in names]
        return [self._fetch(one, Path(directory)) for one in wanted]

    def _fetch(self, artifact: wire.Artifact, directory: Path) -> Path:
        with Receiving(artifact, directory) as receiving:
            while True:
                try:
                    self._receive(artifact, receiving)
                except (httpx.TransportError, ServiceUnavailableError) as error:
                    time.sleep(receiving.broke(error))
                else:
                    return receiving.put()

    def _receive(self, artifact: wire.Artifact, receiving: Receiving) -> None:
        url = f"/v1/jobs/{self.id}/artifacts/{artifact.name}"
        with self._client._http.stream("GET", url, headers=receiving.headers()) as response:  # noqa: SLF001
            if not response.is_success:
                response.read()
            receiving.begin(response)
            for chunk in response.iter_bytes():
                receiving.take(chunk)

    def _repr_html_(self) -> str:
        return as_html(self, self.epochs())


class Jobs:
    """The jobs of a service."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(self, spec: Spec | None = None, *, idempotency_key: str | None = None, **fields: Any) -> Job:
        """Queue a job: a ``JobSpec`` or a dictionary, or its fields by name, which go before those of the spec.

        Sent again after a lost answer, it makes no second job.
        """
        return self._job(operations.submit(spec or {}, fields, idempotency_key))

    def plan(self, spec: Spec | None = None, **fields: Any) -> wire.PlannedJob:
        """Fill in defaults, count mini-batches and iterations, and give advice; nothing is queued."""
        return self._client.carry_out(operations.plan(spec or {}, fields))

    def get(self, job_id: str) -> Job:
        """Read a job. Raises NotFoundError."""
        return self._job(operations.job(job_id))

    def list(
        self,
        *,
        status: Sequence[wire.Status] = (),
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        search: str | None = None,
    ) -> Iterator[Job]:
        """Yield jobs, the newest first, page by page."""
        filters = operations.filters(status, name, tags, search)
        after = None
        while True:
            page = self._client.carry_out(operations.jobs(100, after, filters))
            yield from (Job.of(self._client, one) for one in page.data)
            if (after := page.next) is None:
                return

    def _job(self, flow: Flow[wire.Job]) -> Job:
        return Job.of(self._client, self._client.carry_out(flow))
