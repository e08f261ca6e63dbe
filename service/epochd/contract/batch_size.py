"""Measured batch sizes, as callers ask for them and see them."""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from epochd.contract.base import Request, Response, Timestamp
from epochd.contract.job import JobError
from epochd.contract.models import Model
from epochd.contract.spec import (
    DEVICE,
    AdamW,
    Augmentation,
    ClassWeight,
    Dataset,
    JobSpec,
    Loss,
    Optimizer,
    Seed,
    Validation,
)

MeasurementStatus = Literal["queued", "running", "succeeded", "failed"]
MAX_SECONDS: Final = 300.0
DEFAULT_SECONDS: Final = 20.0


class BatchSizeRequest(Request):
    """What to measure batch sizes for: a job's data set, model and device, and whatever else changes its speed."""

    dataset: Dataset
    model: Model | None = None
    """By default an `mlp` that fits the data set, as for a job."""
    optimizer: Optimizer = AdamW(name="adamw")
    loss: Loss | None = None
    class_weights: Literal["balanced"] | Annotated[dict[str, ClassWeight], Field(min_length=1)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: Augmentation | None = None
    validation: Validation | None = Validation()
    """What is held back is not measured on."""
    seed: Seed = 0
    device: Annotated[str, StringConstraints(pattern=DEVICE)] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_clip_norm: Annotated[float, Field(gt=0, le=1e12)] | None = None
    seconds: Annotated[float, Field(ge=1, le=MAX_SECONDS)] = DEFAULT_SECONDS
    """How long to measure, about; too short a time leaves out large sizes, and then the noise scale."""

    def as_spec(self) -> JobSpec:
        """Make it a job: with two samples in each mini-batch, which every model takes; it says nothing here."""
        given = self.model_dump(mode="json", exclude={"seconds"})
        return JobSpec.model_validate({**given, "epochs": 1, "batch_size": 2, "drop_last": True})


class MeasuredSize(Response):
    """What real iterations at one batch size took."""

    batch_size: int
    fits: bool
    peak_memory_bytes: int | None
    """On the CPU resident memory of the whole measuring process, on a GPU what tensors took; `null` where unknown."""
    samples_per_second: float | None
    """The median over blocks of iterations."""
    epoch_seconds: float | None
    """An epoch at that speed, without validation."""
    iterations: int
    """How many were timed."""
    reason: str | None
    """Why it does not fit."""


class MeasuredNoise(Response):
    """The simple gradient noise scale tr(Σ) / |G|² in samples (McCandlish et al. 2018, appendix A.1)."""

    value: float | None
    """`null` when the gradient could not be told from its noise."""
    low: float | None
    high: float | None
    """`low` and `high` bound 95 %; `high` is `null` when it might be any size."""
    gradient_norm_squared: float
    gradient_variance: float
    batch_size_small: int
    batch_size_big: int
    measurements: int


class BatchSizeReasons(Response):
    """Why, a sentence for each."""

    fits: str
    fastest: str
    recommended: str


class BatchSizeMeasurement(Response):
    """Batch sizes measured on a device; while it runs, as far as it has come."""

    id: str
    status: MeasurementStatus
    done: bool
    dataset: Dataset
    model: Model | None
    train_samples: int
    seconds: float
    """That may be measured."""
    sizes: list[MeasuredSize]
    """Powers of two, ascending; one that does not fit is the last."""
    noise_scale: MeasuredNoise | None
    """`null` before it is measured, and where time, memory or samples were short of it."""
    fits: int | None
    """The largest that fits."""
    fastest: int | None
    """The smallest whose speed is within 5 % of the highest."""
    recommended: int | None
    """The noise scale rounded to a power of two within what fits; without one, the fastest."""
    reasons: BatchSizeReasons | None
    error: JobError | None
    worker: str | None
    device: str | None
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
