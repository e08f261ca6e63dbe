"""Iterations and epochs as callers see them."""

from epochd.contract.base import Response

ITERATION_FIELDS = ("train_loss", "learning_rate", "gradient_norm", "samples_per_second")
"""The recorded columns of an iteration, beside ``iteration`` and ``epoch``."""


class IterationColumns(Response):
    """One list a column, all of equal length, ascending by iteration; a value that is not finite is null."""

    iteration: list[int]
    epoch: list[int] | None = None
    train_loss: list[float | None] | None = None
    learning_rate: list[float | None] | None = None
    gradient_norm: list[float | None] | None = None
    samples_per_second: list[float | None] | None = None


class Iterations(Response):
    """A slice of a job's iterations."""

    columns: IterationColumns
    next: int | None
    """Pass it as `after` to get what follows; null when there is nothing more for now."""


class Epoch(Response, extra="allow"):
    """One epoch; beside these, each metric by its name, such as `validation_accuracy` or `validation_r2`."""

    epoch: int
    train_loss: float | None
    validation_loss: float | None
    learning_rate: float
    seconds: float
    is_best: bool
    """True for the one best epoch so far."""


class Epochs(Response):
    """The epochs of a job, ascending."""

    data: list[Epoch]
    next: int | None
