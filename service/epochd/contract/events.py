"""The durable, numbered sequence of events of a job."""

from typing import Any, Final, Literal

from epochd.contract.base import Response, Timestamp

EventType = Literal[
    "job.queued",
    "job.started",
    "epoch.completed",
    "early_stopping.updated",
    "diagnosis.changed",
    "checkpoint.saved",
    "checkpoint.restored",
    "checkpoint.failed",
    "spec.amended",
    "batch_size.chosen",
    "memory.reduced",
    "export.completed",
    "export.failed",
    "job.paused",
    "job.resumed",
    "attempt.lost",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
]
LAST_EVENT_TYPES: Final[frozenset[EventType]] = frozenset({"job.succeeded", "job.failed", "job.cancelled"})
"""With one of these a job is done. More follows only if it is retried: then `job.queued` comes next."""

_ENDED: Final = (
    "`stop_reason`, `selected_checkpoint`, `error`, `metrics` of the last epoch; as in the job. "
    "The job's newest event, unless it is retried"
)
EVENT_DATA: Final[dict[EventType, str]] = {
    "job.queued": (
        "`plan`, `priority`. Queued again, instead of these `reason`: `retry`, with `from` (`checkpoint` or "
        "`scratch`), or `cancel`, with `keep`, when a worker is to bring out the weights of a paused job"
    ),
    "job.started": "`attempt`, `worker`, `device`: a worker has begun an attempt",
    "epoch.completed": (
        "`epoch`, `iteration` (its last), each metric by its name, `learning_rate`, `seconds`, `is_best`. An "
        "epoch that is trained again comes again only if it came out differently"
    ),
    "early_stopping.updated": "what the job shows as `early_stopping`, after each epoch that was looked at",
    "diagnosis.changed": "what the job shows as `diagnosis`, when its verdict has changed",
    "checkpoint.saved": (
        "`epoch` and `iteration` (the newest completed in it), `bytes`, `reason` (`epoch`, `time`, `pause`, "
        "`shutdown` or `cancel`), `is_best`"
    ),
    "checkpoint.restored": (
        "`attempt`, `epoch` and `iteration` (0 when none could be used), `saved_by_attempt`, `saved_at`, "
        "`skipped` (newer ones that could not be used: `file`, `reason`)"
    ),
    "checkpoint.failed": "`code`, `message`: it could not be written; training goes on without it",
    "spec.amended": (
        "`changes` (dotted field: new value), `epoch` and `iteration` (the newest completed when it took effect)"
    ),
    "batch_size.chosen": (
        "`batch_size`, what `auto` came to, and why: `fits`, `fastest`, `recommended`, `reasons`, `sizes` and "
        "`noise_scale` as `POST /v1/batch-size` answers"
    ),
    "memory.reduced": (
        "`epoch`, `iteration` (the one that did not fit into memory, done all the same), `batch_size`, "
        "`micro_batch_size` (the most samples that go together from now on), `micro_batches` (how many make up a "
        "mini-batch), `batch_statistics` (the model has batch normalisation, which sees micro-batches)"
    ),
    "export.completed": (
        "`name` of the artifact, `bytes`, and how it was checked: over `samples` samples of the `split` its outputs "
        "are at most `largest_difference` from the trained model's, where `tolerance` is allowed"
    ),
    "export.failed": "`name`, `code`, `message`: there is no such artifact; the job has its weights all the same",
    "job.paused": "`epoch`, `iteration` (both the newest completed), `attempt`: the device is free",
    "job.resumed": "`epoch`, `iteration`: queued, to go on from there",
    "attempt.lost": "`attempt`, `reason`, `retry_in_seconds`: queued again, or null: paused, as was asked for",
    "job.succeeded": _ENDED,
    "job.failed": _ENDED,
    "job.cancelled": _ENDED,
}
"""What the `data` of each type holds, for people."""


class Event(Response):
    """Something that happened to a job."""

    seq: int
    """1, 2, 3, … without a gap, for each job."""
    type: EventType
    created_at: Timestamp
    data: dict[str, Any]


class Events(Response):
    """A page of events, ascending."""

    data: list[Event]
    next: int | None
    """Pass it as `after` to get what follows; null when there is nothing more for now."""
    newest: int
    """The `seq` of the job's newest event of any type: pass it as `after` to stream what happens from now on."""
