"""The job as callers see it."""

from typing import Any, ClassVar, Final, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from epochd.contract.base import Request, Response, Timestamp
from epochd.contract.spec import (
    EarlyStopping,
    Epochs,
    JobSpec,
    LearningRate,
    Name,
    Optimizer,
    Priority,
    Tags,
)

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
StopReason = Literal["completed", "early_stopped", "target_reached", "time_limit", "cancelled", "failed"]
Verdict = Literal["underfitting", "good_fit", "overfitting", "diverging", "plateau", "noisy", "undetermined"]
ErrorCategory = Literal["spec", "data", "out_of_memory", "numeric", "infrastructure", "time_limit"]
Keep = Literal["best", "last", "nothing"]
RetrySource = Literal["checkpoint", "scratch"]


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
    micro_batch_size: int | None
    """At most so many samples go together, because a mini-batch did not fit into memory; `null`: whole mini-batches."""
    peak_memory_bytes: int | None
    """The most that the newest attempt has held: on a GPU what its tensors took; on the CPU the whole process, with
    PyTorch and the data set in it. `null`: not known."""


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
    min_delta: float | None = None
    """What the last value was compared with: measured, where the spec says `auto`; null until it can be."""


class Suggestion(Response):
    """A change to the spec that a caller can send back."""

    message: str
    patch: dict[str, Any]
    """Each key replaces the spec's field of that name, whole."""


class Diagnosis(Response):
    """What the curves say."""

    verdict: Verdict
    since_epoch: int | None
    """The epoch since which it holds; null while `undetermined`."""
    confidence: float | None = None
    """The probability that the verdict is right, as measured on trainings of known fault; null while `undetermined`."""
    evidence: str
    measurements: dict[str, float | None] = {}
    """The evidence in numbers, in units of the loss; empty before five epochs were validated.

    `train_loss`, `validation_loss` and `best_validation_loss` (at `best_epoch`) are smoothed. `generalisation_gap` is
    validation less training loss. `train_slope`, `validation_slope` and `gap_slope` are by how much each grows an epoch
    over the last quarter of the epochs, with the standard errors `…_error`; `still_falling` is 1 where the validation
    loss falls by something that matters. `trivial_loss` is what the predictor loses that knows no features, and
    `distance_to_trivial` the part of it that was gained. `train_noise` and `validation_noise` are standard deviations
    from epoch to epoch, `mini_batch_noise` that between the mini-batches of an epoch. `last_epoch`, `epochs` and
    `validated_epochs` say what was read.
    """
    suggestions: list[Suggestion]
    """What to change in the spec, the most promising first."""


class JobDiagnosis(Diagnosis):
    """What the curves of a job say so far, or once it is done."""

    job: str
    status: Status
    epoch: int
    """The newest completed epoch."""
    final: bool
    """Whether the job is done."""


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
    pause_requested_at: Timestamp | None
    """Null again once the job is paused, or the pause was withdrawn by resuming it."""


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


class PauseRequest(Request):
    """How to pause a job: there is nothing to choose."""


class ResumeRequest(Request):
    """How to resume a job: there is nothing to choose."""


class RetryRequest(Request):
    """Where a failed or cancelled job is to begin again."""

    source: RetrySource = Field("checkpoint", alias="from")
    """`checkpoint`: the newest that can be used, or where there is none the first iteration. `scratch`: the
    first iteration, as if nothing had been trained."""


class OptimizerPatch(Request):
    """What of an optimizer can be amended."""

    FIXED: ClassVar[frozenset[str]] = frozenset(
        name for kind in get_args(get_args(Optimizer)[0]) for name in kind.model_fields
    ) - {"learning_rate"}

    learning_rate: LearningRate
    """The base of the schedule, which goes on from where it is. Takes effect at the next iteration."""


AMENDABLE: Final = "name, tags, priority, epochs, optimizer.learning_rate and early_stopping"


def _as_a_patch(schema: dict[str, Any]) -> None:
    """Say in the schema what ``_refuse_null`` and ``_refuse_nothing`` do: null is a value of two fields only."""
    for name, field in schema["properties"].items():
        del field["default"]
        if name not in {"name", "early_stopping"}:
            field.update(next(kind for kind in field.pop("anyOf") if kind != {"type": "null"}))
    schema["minProperties"] = 1


class JobPatch(Request, json_schema_extra=_as_a_patch):
    """How to amend a job that is not done. What is left out stays as it is.

    Each key that is sent replaces the spec's field of that name, whole; of the optimizer it is the learning rate
    alone.
    """

    # A field was sent if it is in `model_fields_set`: null is a value of `name` and of `early_stopping`. The others
    # are None only when they were left out.

    FIXED: ClassVar[frozenset[str]] = frozenset(JobSpec.model_fields) - {
        "name", "tags", "priority", "epochs", "optimizer", "early_stopping"
    }  # fmt: skip

    name: Name | None = None
    """`null` takes the name away."""
    tags: Tags | None = None
    """All of the tags that the job is to have."""
    priority: Priority | None = None
    """Counts when the job is next claimed."""
    epochs: Epochs | None = None
    """More than are completed. Takes effect at the end of the running epoch: one more epoch can be asked for
    during the last one."""
    optimizer: OptimizerPatch | None = None
    early_stopping: EarlyStopping | None = None
    """The whole policy, or `null` for none. Takes effect at the end of the running epoch. While `monitor` and
    `mode` stay the same, what was seen so far still counts; another monitor begins afresh."""

    @field_validator("tags", "priority", "epochs", "optimizer", mode="before")
    @classmethod
    def _refuse_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must not be null: leave it out to keep what it is")
        return value

    @model_validator(mode="after")
    def _refuse_nothing(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"must change something; {AMENDABLE} can be amended")
        return self


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
