"""The workers, as callers see them."""

from epochd.contract.base import Response, Timestamp


class WorkerDevice(Response):
    """A device that a worker trains on."""

    name: str
    """`cpu`, or `cuda:0` and so on."""
    memory_used_bytes: int | None
    """By whomever; `null` where it is not known."""
    memory_total_bytes: int | None


class WorkerJob(Response):
    """A job that a worker trains now."""

    job: str
    attempt: int
    device: str
    claimed_at: Timestamp


class Worker(Response):
    """A process that trains jobs, or measures batch sizes."""

    id: str
    """`host:pid`."""
    host: str
    pid: int
    devices: list[WorkerDevice]
    slots: int
    """Jobs that it can train at the same time."""
    models: list[str]
    """The operator's models that it has."""
    running: list[WorkerJob]
    measuring: list[str]
    """The measurements of batch sizes that it makes now."""
    started_at: Timestamp
    last_seen_at: Timestamp


class WorkerList(Response):
    """The workers that live, the oldest first."""

    data: list[Worker]
    next: None = None
    """There are few workers: one page holds them all."""
