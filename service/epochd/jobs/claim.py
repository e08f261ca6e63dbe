"""A worker takes the next job."""

from epochd.store import events, jobs, workers
from epochd.store.database import Database, Transaction
from epochd.store.jobs import Claim


def claim(db: Database, *, worker: str, device: str, lease_seconds: float) -> Claim | None:
    """Give the next queued job to ``worker`` as a new attempt, or return None when there is none.

    Jobs come by priority, then age; one that asks for a device that only others have is left to them. The attempt is
    the worker's for ``lease_seconds``, by the database's clock; the runner renews it.
    """
    with db.write() as tx:
        refused = _left_to_others(tx, device)
        taken = jobs.claim(tx, worker=worker, device=device, lease_seconds=lease_seconds, refused=refused)
        if taken is not None:
            data = {"attempt": taken.attempt, "worker": worker, "device": device}
            events.append(tx, taken.job.number, "job.started", data)
    return taken


def _left_to_others(tx: Transaction, device: str) -> list[str]:
    """List what a spec may ask for as its device that this slot does not have, and somebody else who lives has.

    What nobody has is not left to anybody: whoever takes it fails it, and says why.
    """
    there = {str(name) for one in workers.alive(tx) for name in one.devices}
    cuda = {name for name in there if name.startswith("cuda")}
    if device.startswith("cuda"):
        return sorted(cuda - {device})
    return sorted(cuda | {"cuda"}) if cuda else []
