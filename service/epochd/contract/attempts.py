"""The attempts of a job as callers see them."""

from typing import Literal

from epochd.contract.base import Response, Timestamp
from epochd.contract.job import JobError

AttemptOutcome = Literal["succeeded", "failed", "cancelled", "paused", "released", "lost"]


class SkippedCheckpoint(Response):
    """A checkpoint that could not be used."""

    file: str
    reason: str


class RestoredCheckpoint(Response):
    """What an attempt resumed from."""

    epoch: int
    """Epochs completed in it; 0 when no checkpoint could be used."""
    iteration: int
    """Iterations completed in it; 0 when no checkpoint could be used."""
    attempt: int | None
    """The attempt that had saved it."""
    saved_at: Timestamp | None
    skipped: list[SkippedCheckpoint]
    """Newer checkpoints that could not be used, and why."""


class Attempt(Response):
    """One execution of a job by one worker."""

    attempt: int
    """1, 2, 3, … within the job."""
    worker: str
    device: str
    started_at: Timestamp
    finished_at: Timestamp | None
    outcome: AttemptOutcome | None
    """Null while it runs. `released`: given back by a worker that shut down. `lost`: its process or machine was."""
    first_iteration: int
    """The first that it trained, or would have; 1 until it knows. Once it has recorded it, what earlier attempts
    recorded from there on is replaced."""
    last_iteration: int | None
    """The last that it recorded; null when it recorded none."""
    restored: RestoredCheckpoint | None
    """Null when there was no checkpoint to resume from."""
    error: JobError | None


class AttemptList(Response):
    """The attempts of a job, the first one first."""

    data: list[Attempt]
    next: None = None
    """A job has few attempts: one page holds them all."""
