"""Which status may follow which. Pure: no SQL, no clock.

::

    (POST) ──> queued ──> running ──> succeeded | failed | cancelled
                 ^  │         │
                 │  └─────────┼─────> cancelled
                 └────────────┘  the attempt was lost or given back
"""

from typing import Any, Final

from epochd.contract.job import Status

DONE: Final[frozenset[Status]] = frozenset({"succeeded", "failed", "cancelled"})

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    # A worker claims it; the API cancels what nobody has claimed.
    "queued": frozenset({"running", "cancelled"}),
    # The worker that holds the attempt ends it; the reaper does when the lease has expired, or queues it again.
    "running": frozenset({"queued", "succeeded", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


def is_done(status: str) -> bool:
    """Tell whether nothing further happens to a job in this status."""
    return status in DONE


def move(source: Status, target: Status) -> dict[str, Any]:
    """Give the arguments of the guarded UPDATE that moves a job from ``source`` to ``target``."""
    assert target in TRANSITIONS[source], f"no job goes from {source} to {target}"
    return {"expected": (source,), "status": target}
