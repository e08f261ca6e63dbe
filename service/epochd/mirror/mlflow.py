"""An MLflow tracking server, over its REST API (``/api/2.0/mlflow``): a run a job.

Not by MLflow's own client: that takes seconds and 200 MB to import, and decides by itself how long to try again. What
it reads from the environment to sign in counts here as well.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from epochd.errors import ConfigurationError, MirrorAwayError, MirrorRefusedError
from epochd.mirror.targets import Series, amended, parameters
from epochd.store.jobs import JobRow

METRICS_A_REQUEST: Final = 1000
OTHERS_A_REQUEST: Final = 100
MAX_TAG: Final = 5000
EXPERIMENT: Final = "epochd"
_STATUSES: Final = {
    "queued": "SCHEDULED",
    "paused": "SCHEDULED",
    "running": "RUNNING",
    "succeeded": "FINISHED",
    "failed": "FAILED",
    "cancelled": "KILLED",
}
_NOT_THERE = "RESOURCE_DOES_NOT_EXIST"
_REFUSALS = frozenset({400, 404, 409, 413, 422})


class Mlflow:
    """A tracking server; runs appear in the experiment of MLFLOW_EXPERIMENT_NAME, by default ``epochd``."""

    name = "mlflow"
    rows = METRICS_A_REQUEST // 4

    def __init__(self, uri: str, *, timeout_seconds: float = 10.0) -> None:
        self.url = uri.rstrip("/")
        self._experiment_id: str | None = None
        try:
            self._client = httpx.Client(
                base_url=f"{self.url}/api/2.0/mlflow/",
                timeout=timeout_seconds,
                auth=_credentials(),
                headers=_token(),
                verify=os.environ.get("MLFLOW_TRACKING_INSECURE_TLS") != "true",
            )
        except httpx.InvalidURL:  # it may quote a part of the password
            raise ConfigurationError(
                "the MLflow server's address cannot be read; a password is percent-encoded in it"
            ) from None

    def open(self, job: JobRow, run: str | None, *, key: str, replaces: str | None = None) -> "MlflowRun":
        """Open a run by its id, or by the tag ``epochd.mirror``; or begin one."""
        run_id = run or self._found(key) or self._create(job, key, replaces)
        found = self.call("GET", "runs/get", run_id=run_id)["run"]
        if found["info"].get("lifecycle_stage") == "deleted":
            raise MirrorRefusedError(f"its MLflow run {run_id} was deleted")
        return MlflowRun(self, found)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def page(self, run: str) -> str:
        """Give the address at which a run is looked at, without a password."""
        return f"{self._place}/#/experiments/{self._experiment()}/runs/{run}"

    def delete(self, run: str) -> None:
        """Delete a run, as far as MLflow deletes: it can be restored there."""
        self.call("POST", "runs/delete", run_id=run)

    def call(self, method: str, path: str, **values: Any) -> dict[str, Any]:
        """Send a request and return the answer; raises MirrorAwayError and MirrorRefusedError."""
        try:
            answer = self._send(method, path, values)
            body = answer.json() if answer.content else {}
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MirrorAwayError(f"MLflow at {self._place} does not answer: {_reason(error)}") from error
        except ValueError:
            body = None
        if answer.is_success and isinstance(body, dict):
            return body
        raise self._error(answer.status_code, body)

    def _send(self, method: str, path: str, values: dict[str, Any]) -> httpx.Response:
        if method == "GET":
            return self._client.get(path, params=values)
        return self._client.post(path, json=values)

    @property
    def _place(self) -> str:
        """The address without a password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def _error(self, status: int, body: Any) -> MirrorAwayError | MirrorRefusedError:
        self._experiment_id = None  # it may be gone
        code = body.get("error_code") if isinstance(body, dict) else None
        if code is None:
            return MirrorAwayError(f"what answers at {self._place} is no MLflow server (HTTP {status})")
        message = f"{code}: {str(body.get('message', ''))[:500]}"
        if status in _REFUSALS:
            return MirrorRefusedError(f"MLflow refuses it: {message}")
        return MirrorAwayError(f"MLflow at {self._place} answers HTTP {status}: {message}")

    def _experiment(self) -> str:
        if self._experiment_id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
            try:
                self._experiment_id = self._experiment_of(name)
            except MirrorRefusedError as error:
                raise MirrorAwayError(f"MLflow's experiment {name!r}: {error.message}") from error
        return self._experiment_id

    def _experiment_of(self, name: str) -> str:
        found = self._experiment_called(name)
        if found is None:
            try:
                return str(self.call("POST", "experiments/create", name=name)["experiment_id"])
            except MirrorRefusedError:
                found = self._experiment_called(name)  # somebody else may have made it just now
                if found is None:
                    raise
        if found.get("lifecycle_stage") == "deleted":
            raise MirrorRefusedError("it was deleted; restore it, or set MLFLOW_EXPERIMENT_NAME to another")
        return str(found["experiment_id"])

    def _experiment_called(self, name: str) -> dict[str, Any] | None:
        try:
            found = self.call("GET", "experiments/get-by-name", experiment_name=name)
        except MirrorRefusedError as error:
            if _NOT_THERE in error.message:
                return None
            raise
        return dict(found["experiment"])

    def _found(self, key: str) -> str | None:
        answer = self.call(
            "POST",
            "runs/search",
            experiment_ids=[self._experiment()],
            filter=f"tags.`epochd.mirror` = '{key}'",
            max_results=1,
        )
        runs = answer.get("runs", [])
        return str(runs[0]["info"]["run_id"]) if runs else None

    def _create(self, job: JobRow, key: str, replaces: str | None) -> str:
        tags = {"epochd.mirror": key, "epochd.job_id": job.id}
        answer = self.call(
            "POST",
            "runs/create",
            experiment_id=self._experiment(),
            run_name=job.name or job.id,
            start_time=_milliseconds((job.started_at or job.created_at).timestamp()),
            tags=_pairs(tags if replaces is None else {**tags, "epochd.replaces": replaces}),
        )
        return str(answer["run"]["info"]["run_id"])


class MlflowRun:
    """One run. What it has is read when it is opened; only what differs is sent."""

    def __init__(self, server: Mlflow, found: Mapping[str, Any]) -> None:
        info, data = found["info"], found.get("data", {})
        self.name = str(info["run_id"])
        self.known = {one["key"]: int(one.get("step", 0)) for one in data.get("metrics", [])}
        self._server = server
        self._has_params = {one["key"] for one in data.get("params", [])}
        self._tags = {one["key"]: one.get("value", "") for one in data.get("tags", [])}
        self._state = {"status": info.get("status"), "run_name": info.get("run_name")}

    def log(self, series: Sequence[Series]) -> None:
        """Send values, each metric's in the order of its steps."""
        values = (
            {"key": one.key, "value": value, "step": step, "timestamp": _milliseconds(moment)}
            for one in series
            for step, value, moment in zip(
                one.steps.tolist(), one.values.tolist(), one.times.tolist(), strict=True
            )
        )
        while metrics := list(islice(values, METRICS_A_REQUEST)):
            self._server.call("POST", "runs/log-batch", run_id=self.name, metrics=metrics)

    def describe(self, job: JobRow) -> None:
        """Send parameters, which never change, the tags that have changed, and the status."""
        params = {key: value for key, value in _shown(parameters(job)).items() if key not in self._has_params}
        for some in _batches(_pairs(params)):
            self._server.call("POST", "runs/log-batch", run_id=self.name, params=some)
        self._has_params |= params.keys()
        tags = {key: value for key, value in _tags(job).items() if self._tags.get(key) != value}
        for some in _batches(_pairs(tags)):
            self._server.call("POST", "runs/log-batch", run_id=self.name, tags=some)
        self._tags |= tags
        self._update({"status": _STATUSES[job.status], "run_name": job.name or job.id}, job)

    def give_way(self, run: str) -> None:
        """End it, with a tag that says why."""
        tags = _pairs({"epochd.replaced_by": run})
        self._server.call("POST", "runs/log-batch", run_id=self.name, tags=tags)
        self._server.call(
            "POST", "runs/update", run_id=self.name, status="KILLED", end_time=_milliseconds(time.time())
        )

    def close(self) -> None:
        """There is nothing to give back."""

    def _update(self, state: dict[str, Any], job: JobRow) -> None:
        if state == self._state:
            return
        ended = {} if job.finished_at is None else {"end_time": _milliseconds(job.finished_at.timestamp())}
        self._server.call("POST", "runs/update", run_id=self.name, **state, **ended)
        self._state = state


def _tags(job: JobRow) -> dict[str, str]:
    ours = {
        "epochd.job_id": job.id,
        "epochd.status": job.status,
        "epochd.stop_reason": job.stop_reason,
        "epochd.attempts": job.attempt,
        "epochd.priority": job.priority,
        "epochd.verdict": (job.diagnosis or {}).get("verdict"),
        "epochd.error": job.error and f"{job.error['code']}: {job.error['message']}",
        **{f"epochd.amended.{key}": value for key, value in amended(job).items()},
    }
    return {**{_tag_of_user(key): value for key, value in job.tags.items()}, **_shown(ours)}


def _tag_of_user(key: str) -> str:
    """Keep a user's tag from being one of MLflow's own, or of ours."""
    return f"tag.{key}" if key.startswith(("mlflow.", "epochd.")) else key


def _shown(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value)[:MAX_TAG] for key, value in values.items() if value is not None}


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _batches(pairs: Iterable[dict[str, str]]) -> Iterable[list[dict[str, str]]]:
    left = iter(pairs)
    while some := list(islice(left, OTHERS_A_REQUEST)):
        yield some


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _credentials() -> httpx.BasicAuth | None:
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return httpx.BasicAuth(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None


def _token() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it took too long"
    return str(error) or type(error).__name__
