"""The durable, numbered sequence of events of a job."""

from typing import Any, Literal

from epochd.contract.base import Response, Timestamp

EventType = Literal[
    "job.queued",
    "job.started",
    "epoch.completed",
    "early_stopping.updated",
    "diagnosis.changed",
    "attempt.lost",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
]
LAST_EVENT_TYPES = frozenset({"job.succeeded", "job.failed", "job.cancelled"})
"""After one of these a job has no further event."""


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
