"""The client that awaits each answer; what it does is told by the same flows as the blocking one's."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import PrivateAttr

from epochd.client import operations
from epochd.client.calls import Flow, Pause, Step, T
from epochd.client.connection import options
from epochd.client.events import ServerSentEvent, read_events_async
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


class AsyncClient:
    """A service at ``url``; ``key`` is an API key where the service wants one (EPOCHD_URL and EPOCHD_KEY by default).

    Every call is tried again while the service is away, a resent ``submit`` never trains twice, and all errors are
    ``EpochdError``. Close it, or use it in an ``async with``.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**options(url, key), transport=transport)
        self.jobs = AsyncJobs(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def carry_out(self, flow: Flow[T]) -> T:
        """Carry out a flow of ``operations`` to its end."""
        try:
            step = next(flow)
            while True:
                try:
                    answer = await self._take(step)
                except httpx.TransportError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _take(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        with step.opened() as file:
            return await self._http.send(step.request(self._http, file))

    async def compare(
        self, jobs: Sequence[str], *, metric: str | None = None, target: float | None = None
    ) -> Comparison:
        """Put 2 to 20 jobs side by side."""
        return await self.carry_out(operations.compare(jobs, metric, target))

    async def models(self) -> list[ModelDescription]:
        """List what can be trained."""
        return (await self.carry_out(operations.models())).data

    async def workers(self) -> list[Worker]:
        """List who trains, on which devices, and what runs there."""
        return (await self.carry_out(operations.workers())).data

    async def upload(self, file: str | Path, **fields: str | Sequence[str]) -> Dataset:
        """Bring a data set: the ``file``, and by name whatever is not to be inferred (``name``, ``target``, …).

        Sent again after a lost answer, it makes no second one.
        """
        return await self.carry_out(operations.upload(Path(file), fields))

    async def datasets(self) -> AsyncGenerator[DatasetSummary]:
        """List the data sets that were brought, the newest first."""
        after = None
        while True:
            page = await self.carry_out(operations.datasets(100, after))
            for one in page.data:
                yield one
            if (after := page.next) is None:
                return

    async def batch_size(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as the blocking one
        **asked: Any,
    ) -> BatchSizeMeasurement:
        """Measure batch sizes for a ``dataset`` and ``model``. Raises TimeoutError after ``timeout`` seconds."""
        return await self.carry_out(operations.batch_size(asked, timeout))


class AsyncJob(wire.Job):
    """A job as it was when it was read, and what can be done with it; each answer is a new one."""

    _client: AsyncClient = PrivateAttr()

    @classmethod
    def of(cls, client: AsyncClient, found: wire.Job) -> "AsyncJob":
        """Give what the service answered to a client."""
        made = cls.model_construct(**dict(found))
        made._client = client  # noqa: SLF001 - its own
        return made

    async def _do(self, flow: Flow[wire.Job]) -> "AsyncJob":
        return AsyncJob.of(self._client, await self._client.carry_out(flow))

    async def refresh(self) -> "AsyncJob":
        """Read it again."""
        return await self._do(operations.job(self.id))

    async def wait(self, timeout: float | None = None) -> "AsyncJob":  # noqa: ASYNC109 - as the blocking one
        """Wait until it is done, whatever its end is. Raises TimeoutError after ``timeout`` seconds; it goes on."""
        return await self._do(operations.wait(self.id, timeout))

    async def cancel(self, keep: wire.Keep = "best", *, grace_seconds: float = 30) -> "AsyncJob":
        """End it, and keep the weights that ``keep`` names."""
        return await self._do(
            operations.act(self.id, "cancel", {"keep": keep, "grace_seconds": grace_seconds})
        )

    async def pause(self) -> "AsyncJob":
        """Free its device; ``resume`` goes on exactly there."""
        return await self._do(operations.act(self.id, "pause"))

    async def resume(self) -> "AsyncJob":
        """Go on after a pause."""
        return await self._do(operations.act(self.id, "resume"))

    async def retry(self, source: wire.RetrySource = "checkpoint") -> "AsyncJob":
        """Try a failed or cancelled job again."""
        return await self._do(operations.act(self.id, "retry", {"from": source}))

    async def amend(self, **changes: Any) -> "AsyncJob":
        """Change name, tags, priority, epochs, optimizer.learning_rate or early_stopping while it is not done."""
        return await self._do(operations.amend(self.id, changes))

    async def delete(self) -> None:
        """Remove a job that is done, with all that it recorded."""
        await self._client.carry_out(operations.delete(self.id))

    def stream(self, *, iterations: bool = False, last_event_id: str = "") -> AsyncGenerator[ServerSentEvent]:
        """Yield its events as they come, until it is done, without a gap or a repeat through lost connections."""
        params = {"iterations": "true"} if iterations else None
        url = f"/v1/jobs/{self.id}/events"
        return read_events_async(self._client._http, url, params=params, last_event_id=last_event_id)  # noqa: SLF001

    async def iterations(
        self,
        *,
        points: int | None = None,
        fields: Sequence[str] = (),
        after: int = 0,
        up_to: int | None = None,
    ) -> Series:
        """Read what each iteration beyond ``after`` up to ``up_to`` recorded; in at most ``points``, extremes kept."""
        return Series(
            await self._client.carry_out(operations.iterations(self.id, points, fields, after, up_to))
        )

    async def epochs(self) -> Series:
        """Read what each epoch recorded."""
        return Series.of_rows(await self._client.carry_out(operations.epochs(self.id)))

    async def diagnose(self) -> wire.JobDiagnosis:
        """Read what its curves say, and what to change."""
        return await self._client.carry_out(operations.diagnosis(self.id))

    async def what_if(self, **policy: Any) -> WhatIf:
        """Replay other early-stopping policies over its epochs."""
        return await self._client.carry_out(operations.what_if(self.id, policy))

    async def artifacts(self) -> list[wire.Artifact]:
        """List the files that it left."""
        return (await self._client.carry_out(operations.artifacts(self.id))).data

    async def download(self, directory: str | Path = ".", names: Sequence[str] | None = None) -> list[Path]:
        """Fetch its files, or those named, into a directory; each is checked before it is put there."""
        wanted = [one for one in await self.artifacts() if names is None or one.name in names]
        return [await self._fetch(one, Path(directory)) for one in wanted]

    async def _fetch(self, artifact: wire.Artifact, directory: Path) -> Path:
        with Receiving(artifact, directory) as receiving:
            while True:
                try:
                    await self._receive(artifact, receiving)
                except (httpx.TransportError, ServiceUnavailableError) as error:
                    await asyncio.sleep(receiving.broke(error))
                else:
                    return receiving.put()

    async def _receive(self, artifact: wire.Artifact, receiving: Receiving) -> None:
        url = f"/v1/jobs/{self.id}/artifacts/{artifact.name}"
        async with self._client._http.stream("GET", url, headers=receiving.headers()) as response:  # noqa: SLF001
            if not response.is_success:
                await response.aread()
            receiving.begin(response)
            async for chunk in response.aiter_bytes():
                receiving.take(chunk)


class AsyncJobs:
    """The jobs of a service."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def submit(
        self, spec: Spec | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> AsyncJob:
        """Queue a job: a ``JobSpec`` or a dictionary, or its fields by name, which go before those of the spec.

        Sent again after a lost answer, it makes no second job.
        """
        return await self._job(operations.submit(spec or {}, fields, idempotency_key))

    async def plan(self, spec: Spec | None = None, **fields: Any) -> wire.PlannedJob:
        """Fill in defaults, count mini-batches and iterations, and give advice; nothing is queued."""
        return await self._client.carry_out(operations.plan(spec or {}, fields))

    async def get(self, job_id: str) -> AsyncJob:
        """Read a job. Raises NotFoundError."""
        return await self._job(operations.job(job_id))

    async def list(
        self,
        *,
        status: Sequence[wire.Status] = (),
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        search: str | None = None,
    ) -> AsyncGenerator[AsyncJob]:
        """Yield jobs, the newest first, page by page."""
        filters = operations.filters(status, name, tags, search)
        after = None
        while True:
            page = await self._client.carry_out(operations.jobs(100, after, filters))
            for one in page.data:
                yield AsyncJob.of(self._client, one)
            if (after := page.next) is None:
                return

    async def _job(self, flow: Flow[wire.Job]) -> AsyncJob:
        return AsyncJob.of(self._client, await self._client.carry_out(flow))
