"""Several jobs side by side, as callers see them."""

from typing import Any, Literal

from epochd.contract.base import Response
from epochd.contract.job import Status, Verdict


class ComparedJob(Response):
    """What one job came to, by the metric that is compared; `null` where it is not known (yet)."""

    id: str
    name: str | None
    status: Status
    verdict: Verdict
    batch_size: int
    iterations_per_epoch: int
    epochs: int
    """Completed, not planned."""
    iterations: int
    seconds: float
    """Of all completed epochs, validation included; the time between two attempts is not."""
    samples_per_second: float | None
    """Training samples of all completed epochs by their `seconds`."""
    device: str | None
    peak_memory_bytes: int | None
    """As in the job's `progress`."""
    best_value: float | None
    best_epoch: int | None
    """The first with the best value."""
    final_value: float | None
    """The newest value that was measured."""
    generalisation_gap: float | None
    """Validation loss less training loss in the best epoch: what the model does worse on samples it has not seen."""
    noise: float | None
    """How far the metric jumps from one value to the next, its trend aside, in the later half of the epochs: a standard
    deviation, in the metric's unit."""
    epochs_to_target: int | None
    """The first epoch whose value is at least as good as `target`."""
    iterations_to_target: int | None
    seconds_to_target: float | None


class SpecDifference(Response):
    """A value of the specs that is not the same in all of them."""

    path: str
    """Dotted: `optimizer.learning_rate`. Lists are compared whole."""
    values: list[Any]
    """One a job, in the order of `data`; `null` also where a spec has no such value."""


class ComparedCurves(Response):
    """The metric of all jobs by epoch: columns of equal length."""

    epoch: list[int]
    """Ascending; of longer curves evenly chosen epochs, the first and the last among them."""
    values: dict[str, list[float | None]]
    """By the job's id; `null` where that job has no value."""


class Comparison(Response):
    """Jobs side by side."""

    metric: str
    mode: Literal["min", "max"]
    """Whether lower or higher is better."""
    target: float | None
    data: list[ComparedJob]
    """In the order in which they were asked for."""
    differences: list[SpecDifference]
    """Where the specs differ; `name` and `tags`, which change no number, are left out."""
    curves: ComparedCurves
    notes: list[str]
    """What makes the figures less comparable than they look."""
