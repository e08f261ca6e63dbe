"""Another early-stopping policy over the epochs of a job, as callers ask for it and see it."""

from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from epochd.contract.base import Request, Response
from epochd.contract.job import Status, StopReason
from epochd.contract.spec import MAX_EPOCHS, EarlyStopping, MinDelta, Patience

MAX_POLICIES: Final = 1000


def _one_or_many(value: Any) -> str:
    return "many" if isinstance(value, list) else "one"


Patiences = Annotated[list[Patience], Field(min_length=1, max_length=MAX_POLICIES)]
MinDeltas = Annotated[list[MinDelta], Field(min_length=1, max_length=MAX_POLICIES)]


class WhatIfRequest(Request):
    """Policies to replay. What is left out is as in the job's own policy, or, where it has none, the default."""

    monitor: str | None = None
    """An epoch metric that the job records."""
    mode: Literal["min", "max"] | None = None
    """By default the job's for its own monitor, else `min` for a loss or an error and `max` for any other metric."""
    patience: (
        Annotated[
            Annotated[Patience, Tag("one")] | Annotated[Patiences, Tag("many")], Discriminator(_one_or_many)
        ]
        | None
    ) = None
    """One, or a list of them. With both `patience` and `min_delta` every combination is replayed, at most 1000."""
    min_delta: (
        Annotated[
            Annotated[MinDelta, Tag("one")] | Annotated[MinDeltas, Tag("many")], Discriminator(_one_or_many)
        ]
        | None
    ) = None
    """One, or a list of them: numbers and `auto`."""
    start_epoch: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | None = None
    """The first epoch that is looked at."""
    target: float | None = None
    """Stop as soon as the metric is at least this good; sent as `null`: no target."""
    restore_best: bool | None = None
    """Keep the weights of the best epoch; otherwise those of the last."""


class Actual(Response):
    """What the job did, as far as it is recorded."""

    policy: EarlyStopping | None
    """The job's own, as it is now."""
    stop_reason: StopReason | None
    epochs: int
    iterations: int
    seconds: float
    """Of the recorded epochs, validation included."""
    best_epoch: int | None
    """By the metric that the replayed policies watch, from their `start_epoch` on."""
    best_value: float | None
    kept_epoch: int | None
    """Whose weights the artifacts hold; null before the job is done."""
    kept_value: float | None
    """The watched metric at that epoch."""


class Replayed(Response):
    """What a policy would have done, had it been in force from the first epoch."""

    policy: EarlyStopping
    stopped: bool
    """Within the recorded epochs."""
    stopped_epoch: int | None
    stop_reason: Literal["early_stopped", "target_reached"] | None
    would_go_on: bool
    """It would not have stopped yet, and the spec has more epochs than are recorded."""
    best_epoch: int | None
    best_value: float | None
    kept_epoch: int | None
    """Whose weights the artifacts would hold; of one that would go on, as if it ended now."""
    kept_value: float | None
    value_lost: float | None
    """By how much `kept_value` is worse than the best that was recorded: 0 says that nothing was lost."""
    epochs: int
    """How long training would have been. Of one that would go on after a job that is done, the least: if nothing
    improved any more."""
    iterations: int
    seconds: float
    """Epochs beyond the record count as the mean of those recorded."""
    epochs_saved: int
    """Against what the job did; negative: spent."""
    iterations_saved: int
    seconds_saved: float


class WhatIf(Response):
    """Other policies over a job's epochs."""

    job: str
    status: Status
    epochs: int
    """Epochs recorded, over which was replayed; of a job that is not done there will be more."""
    actual: Actual
    data: list[Replayed]
    """A row a policy, by ascending place in `patience` and then in `min_delta`."""
    next: None = None
    """All of them are in one answer."""
