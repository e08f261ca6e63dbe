"""A worker takes the next job."""

from collections.abc import Sequence

from epochd.store import events, jobs, workers
from epochd.store.database import Database
from epochd.store.jobs import Claim
from epochd.store.workers import WorkerRow


def claim(
    db: Database, *, worker: str, device: str, lease_seconds: float, models: Sequence[str] = ()
) -> Claim | None:
    """Give the next queued job to ``worker`` as a new attempt, or return None when there is none.

    Jobs come by priority, then age; one that asks for a device that only others have is left to them, and so is one
    whose model is the operator's and not among the ``models`` that the worker has. The attempt is the worker's for
    ``lease_seconds``, by the database's clock; the runner renews it.
    """
    with db.write() as tx:
        alive = workers.alive(tx)
        taken = jobs.claim(
            tx,
            worker=worker,
            device=device,
            lease_seconds=lease_seconds,
            refused=_left_to_others(alive, device),
            models={name: _left_to_others(_with_model(alive, name), device) for name in models},
        )
        if taken is not None:
            data = {"attempt": taken.attempt, "worker": worker, "device": device}
            events.append(tx, taken.job.number, "job.started", data)
    return taken


def refused_devices(alive: Sequence[WorkerRow], device: str, model: str | None) -> list[str]:
    """List what may be asked for as a device that this slot leaves to others; ``model`` is the operator's, or None."""
    return _left_to_others(list(alive) if model is None else _with_model(alive, model), device)


def _with_model(alive: Sequence[WorkerRow], model: str) -> list[WorkerRow]:
    """List those that could take a job of this model: nothing is left to others, who cannot train it either."""
    return [one for one in alive if model in (one.models or ())]


def _left_to_others(alive: Sequence[WorkerRow], device: str) -> list[str]:
    """List what a spec may ask for as its device that this slot does not have, and somebody else who lives has.

    What nobody has is not left to anybody: whoever takes it fails it, and says why.
    """
    there = {str(name) for one in alive for name in one.devices}
    cuda = {name for name in there if name.startswith("cuda")}
    if device.startswith("cuda"):
        return sorted(cuda - {device})
    return sorted(cuda | {"cuda"}) if cuda else []
