"""The job as callers see it."""

from typing import Any, Literal

from pydantic import Field

from epochd.contract.base import Request, Response, Timestamp
from epochd.contract.spec import JobSpec

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
StopReason = Literal["completed", "early_stopped", "target_reached", "time_limit", "cancelled", "failed"]
Verdict = Literal["underfitting", "good_fit", "overfitting", "diverging", "undetermined"]
ErrorCategory = Literal["spec", "data", "out_of_memory", "numeric", "infrastructure", "time_limit"]
Keep = Literal["best", "last", "nothing"]


class Plan(Response):
    """Samples N and batch size B give ceil(N/B) iterations an epoch; floor with `drop_last`."""

    train_samples: int
    validation_samples: int
    batch_size: int
    mini_batches_per_epoch: int
    last_batch_size: int
    iterations_per_epoch: int
    total_iterations: int


class Advice(Response):
    """Something about the spec that works but could be better."""

    code: str
    param: str
    message: str


class PlannedJob(Response):
    """What a job would be."""

    spec: JobSpec
    plan: Plan
    advice: list[Advice]


class Progress(Response):
    """How far a job is."""

    epoch: int
    """Epochs completed."""
    epochs: int
    iteration: int
    """Iterations completed."""
    total_iterations: int
    fraction: float
    samples_per_second: float | None
    elapsed_seconds: float | None
    eta_seconds: float | None
    metrics_lag_seconds: float | None


class EarlyStoppingState(Response):
    """What early stopping has seen and decided."""

    monitor: str
    mode: Literal["min", "max"]
    patience: int
    best_value: float | None
    best_epoch: int | None
    epochs_without_improvement: int
    stopped: bool
    stopped_epoch: int | None
    message: str | None


class Suggestion(Response):
    """A change to the spec that a caller can send back."""

    message: str
    patch: dict[str, Any]
    """Each key replaces the spec's field of that name, whole."""


class Diagnosis(Response):
    """What the curves say."""

    verdict: Verdict
    since_epoch: int | None
    evidence: str
    suggestions: list[Suggestion]


class SelectedCheckpoint(Response):
    """Which weights the artifacts hold, and why."""

    epoch: int
    iteration: int
    metric: str | None
    value: float | None
    reason: str


class JobError(Response):
    """Why a job failed."""

    category: ErrorCategory
    code: str
    message: str
    param: str | None
    retryable: bool


class Job(Response):
    """One training job."""

    id: str
    name: str | None
    status: Status
    done: bool
    stop_reason: StopReason | None
    spec: JobSpec
    plan: Plan
    progress: Progress
    metrics: dict[str, float | None]
    early_stopping: EarlyStoppingState | None
    diagnosis: Diagnosis
    selected_checkpoint: SelectedCheckpoint | None
    advice: list[Advice]
    error: JobError | None
    attempt: int
    worker: str | None
    device: str | None
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    cancel_requested_at: Timestamp | None


class JobList(Response):
    """A page of jobs, newest first."""

    data: list[Job]
    next: str | None


class CancelRequest(Request):
    """How to end a job before its time."""

    keep: Keep = "best"
    """Which weights the artifacts will hold."""
    grace_seconds: float = Field(30, ge=0, le=86_400)
    """How long the job may take to save its weights before its process is killed."""


class Artifact(Response):
    """A file that a job left."""

    name: str
    media_type: str
    bytes: int
    sha256: str
    created_at: Timestamp


class ArtifactList(Response):
    """The files that a job left."""

    data: list[Artifact]
    next: None = None
    """A job leaves few files: one page holds them all."""
