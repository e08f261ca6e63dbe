"""Which status may follow which. Pure: no SQL, no clock.

::

    (POST) ──> queued    ──> running, paused, cancelled
               running   ──> succeeded, failed, cancelled, paused, queued (the attempt was lost or given back)
               paused    ──> queued, cancelled
               failed    ──> queued (a retry)
               cancelled ──> queued (a retry)
"""

from typing import Any, Final

from epochd.contract.job import Status

DONE: Final[frozenset[Status]] = frozenset({"succeeded", "failed", "cancelled"})

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    # A worker claims it; the API pauses or cancels what nobody has claimed.
    "queued": frozenset({"running", "paused", "cancelled"}),
    # The worker that holds the attempt ends it; the reaper does when the lease has expired, or queues it again.
    "running": frozenset({"queued", "paused", "succeeded", "failed", "cancelled"}),
    # The API resumes or cancels it; where weights are to be kept, a worker brings them out first.
    "paused": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset(),
    # The API retries these two.
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}


def is_done(status: str) -> bool:
    """Tell whether nothing further happens to a job in this status, unless it is retried."""
    return status in DONE


def move(source: Status, target: Status) -> dict[str, Any]:
    """Give the arguments of the guarded UPDATE that moves a job from ``source`` to ``target``."""
    assert target in TRANSITIONS[source], f"no job goes from {source} to {target}"
    return {"expected": (source,), "status": target}
