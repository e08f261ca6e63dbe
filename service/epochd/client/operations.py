"""What can be asked of the service, each as a flow (see ``calls``) that ends with a typed answer."""

import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from epochd.client.calls import Call, Flow, Params, answered
from epochd.contract.batch_size import BatchSizeMeasurement
from epochd.contract.compare import Comparison
from epochd.contract.datasets import Dataset, DatasetList
from epochd.contract.job import ArtifactList, Job, JobDiagnosis, JobList, PlannedJob
from epochd.contract.metrics import Epochs, Iterations
from epochd.contract.model_list import ModelList
from epochd.contract.spec import JobSpec
from epochd.contract.what_if import WhatIf
from epochd.contract.worker_list import WorkerList

M = TypeVar("M", bound=BaseModel)
Spec = JobSpec | Mapping[str, Any]
UPLOAD_SECONDS: Final = 600.0
"""For a file that was sent to be read and checked."""
LONGEST_POLL: Final = 30.0
PAGE: Final = 100_000
"""Iterations at a time."""


def _model(kind: type[M], call: Call) -> Flow[M]:
    response = yield from answered(call)
    # A service that is newer than this client may tell more.
    return kind.model_validate_json(response.content, extra="ignore")


def _as_body(spec: Spec, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent: what the caller gave, and no defaults, which are the service's."""
    given = spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, JobSpec) else dict(spec)
    return {**given, **changes}


def submit(spec: Spec, changes: Mapping[str, Any], idempotency_key: str | None) -> Flow[Job]:
    """``POST /v1/jobs``; sent again, it makes no second job."""
    headers = {"Idempotency-Key": idempotency_key or f"epochd-client-{uuid.uuid4()}"}
    return _model(Job, Call("POST", "/v1/jobs", body=_as_body(spec, changes), headers=headers))


def plan(spec: Spec, changes: Mapping[str, Any]) -> Flow[PlannedJob]:
    """``POST /v1/jobs/plan``."""
    return _model(PlannedJob, Call("POST", "/v1/jobs/plan", body=_as_body(spec, changes)))


def job(job_id: str, wait_seconds: float = 0, until: str = "done") -> Flow[Job]:
    """``GET /v1/jobs/{id}``."""
    params = [("wait_seconds", f"{wait_seconds:g}"), ("until", until)] if wait_seconds else []
    return _model(Job, Call("GET", f"/v1/jobs/{job_id}", params, seconds=10 + wait_seconds))


def wait(job_id: str, timeout: float | None) -> Flow[Job]:
    """Poll until the job is done. Raises TimeoutError after ``timeout`` seconds; the job goes on."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = LONGEST_POLL if end is None else min(LONGEST_POLL, max(end - time.monotonic(), 0))
        found = yield from job(job_id, left)
        if found.done:
            return found
        if end is not None and time.monotonic() >= end:
            raise TimeoutError(f"{job_id} is {found.status} after {timeout:g} s, and goes on.")


def jobs(limit: int, after: str | None, filters: Params) -> Flow[JobList]:
    """``GET /v1/jobs``."""
    following = [("after", after)] if after is not None else []
    return _model(JobList, Call("GET", "/v1/jobs", [("limit", str(limit)), *following, *filters]))


def filters(
    status: Sequence[str], name: str | None, tags: Mapping[str, str] | None, search: str | None
) -> Params:
    """The query of a list of jobs: of one of these statuses, of this name, with all of these tags, with this text."""
    named = [(key, value) for key, value in (("name", name), ("search", search)) if value is not None]
    tagged = [("tag", f"{key}:{value}") for key, value in (tags or {}).items()]
    return [*(("status", one) for one in status), *named, *tagged]


def act(job_id: str, action: str, body: Mapping[str, Any] | None = None) -> Flow[Job]:
    """``POST /v1/jobs/{id}/cancel``, ``pause``, ``resume`` or ``retry``."""
    return _model(Job, Call("POST", f"/v1/jobs/{job_id}/{action}", body=dict(body or {})))


def amend(job_id: str, changes: Mapping[str, Any]) -> Flow[Job]:
    """``PATCH /v1/jobs/{id}``."""
    return _model(Job, Call("PATCH", f"/v1/jobs/{job_id}", body=dict(changes)))


def delete(job_id: str) -> Flow[None]:
    """``DELETE /v1/jobs/{id}``."""
    yield from answered(Call("DELETE", f"/v1/jobs/{job_id}"))


def diagnosis(job_id: str) -> Flow[JobDiagnosis]:
    """``GET /v1/jobs/{id}/diagnosis``."""
    return _model(JobDiagnosis, Call("GET", f"/v1/jobs/{job_id}/diagnosis"))


def artifacts(job_id: str) -> Flow[ArtifactList]:
    """``GET /v1/jobs/{id}/artifacts``."""
    return _model(ArtifactList, Call("GET", f"/v1/jobs/{job_id}/artifacts"))


def epochs(job_id: str) -> Flow[list[dict[str, Any]]]:
    """``GET /v1/jobs/{id}/epochs``, all pages."""
    rows: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        path = f"/v1/jobs/{job_id}/epochs"
        page = yield from _model(Epochs, Call("GET", path, [("after", str(after))]))
        rows += [row.model_dump() for row in page.data]
        after = page.next
    return rows


def iterations(
    job_id: str, points: int | None, fields: Sequence[str], after: int, up_to: int | None
) -> Flow[dict[str, list[Any]]]:
    """``GET /v1/jobs/{id}/iterations``: what lies beyond ``after`` up to ``up_to``, or ``points`` of it; by column."""
    asked = [("fields", ",".join(fields))] if fields else []
    asked += [("up_to", str(up_to))] if up_to is not None else []
    columns: dict[str, list[Any]] = {}
    at: int | None = after
    while at is not None:
        size = [("after", str(at)), ("limit", str(PAGE)) if points is None else ("points", str(points))]
        page = yield from _model(
            Iterations, Call("GET", f"/v1/jobs/{job_id}/iterations", [*size, *asked], seconds=60)
        )
        for name, values in page.columns.model_dump(exclude_none=True).items():
            columns.setdefault(name, []).extend(values)
        at = page.next if points is None else None
    return columns


def what_if(job_id: str, asked: Mapping[str, Any]) -> Flow[WhatIf]:
    """``POST /v1/jobs/{id}/early-stopping/what-if``."""
    path = f"/v1/jobs/{job_id}/early-stopping/what-if"
    return _model(WhatIf, Call("POST", path, body=dict(asked), seconds=60))


def compare(job_ids: Sequence[str], metric: str | None, target: float | None) -> Flow[Comparison]:
    """``GET /v1/metrics/compare``."""
    optional = (("metric", metric), ("target", None if target is None else str(target)))
    asked = [(name, value) for name, value in optional if value is not None]
    params = [*(("job", one) for one in job_ids), *asked]
    return _model(Comparison, Call("GET", "/v1/metrics/compare", params, seconds=60))


def models() -> Flow[ModelList]:
    """``GET /v1/models``."""
    return _model(ModelList, Call("GET", "/v1/models"))


def workers() -> Flow[WorkerList]:
    """``GET /v1/workers``."""
    return _model(WorkerList, Call("GET", "/v1/workers"))


def upload(file: Path, fields: Mapping[str, str | Sequence[str]]) -> Flow[Dataset]:
    """``POST /v1/datasets`` with a file; sent again, it makes no second data set."""
    headers = {"Idempotency-Key": f"epochd-client-{uuid.uuid4()}"}
    call = Call("POST", "/v1/datasets", headers=headers, file=file, fields=fields, seconds=UPLOAD_SECONDS)
    return _model(Dataset, call)


def datasets(limit: int, after: str | None) -> Flow[DatasetList]:
    """``GET /v1/datasets``."""
    following = [("after", after)] if after is not None else []
    return _model(DatasetList, Call("GET", "/v1/datasets", [("limit", str(limit)), *following]))


def batch_size(asked: Mapping[str, Any], timeout: float | None) -> Flow[BatchSizeMeasurement]:
    """``POST /v1/batch-size``, and wait for it. Raises TimeoutError after ``timeout`` seconds."""
    end = None if timeout is None else time.monotonic() + timeout
    first = Call("POST", "/v1/batch-size", [("wait_seconds", "0")], body=dict(asked))
    found = yield from _model(BatchSizeMeasurement, first)
    while not found.done:
        left = LONGEST_POLL if end is None else min(LONGEST_POLL, end - time.monotonic())
        if left <= 0:
            raise TimeoutError(f"{found.id} is {found.status} after {timeout:g} s, and goes on.")
        params = [("wait_seconds", f"{left:g}")]
        again = Call("GET", f"/v1/batch-size/{found.id}", params, seconds=10 + left)
        found = yield from _model(BatchSizeMeasurement, again)
    return found
