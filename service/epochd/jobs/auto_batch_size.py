"""A job whose batch size is ``auto``: a worker measures, and what it found becomes part of the spec."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from epochd.contract.job import PlannedJob
from epochd.contract.spec import JobSpec
from epochd.errors import InvalidRequestError, OutOfMemoryError
from epochd.jobs.amend import MEASURED, store
from epochd.jobs.submit import plan_job
from epochd.store import amendments, attempts, events, jobs
from epochd.store.database import Database, Transaction
from epochd.store.jobs import Claim, JobRow
from epochd.training.advice import FEW_ITERATIONS
from epochd.training.batch_size_choice import BatchSizeChoice, BatchSizeMeasured, NoiseScale, choose

AUTO: Final = "auto"
NEAREST: Final = 16
"""So many sizes that are no powers of two are tried."""


def is_open(job: JobRow) -> bool:
    """Whether the batch size has still to be found."""
    return bool(job.spec["batch_size"] == AUTO)


def as_measured(job: JobRow) -> dict[str, Any]:
    """The spec to measure with: whatever number it has as its batch size is not read."""
    return {**job.spec, "batch_size": job.plan["batch_size"]}


def settle(
    db: Database,
    taken: Claim,
    *,
    lease_seconds: float,
    sizes: Sequence[Mapping[str, Any]],
    noise_scale: Mapping[str, Any] | None,
) -> Claim:
    """Put the size that was found best into the spec and the plan of a job that is held; return the claim as it is now.

    Of the sizes that fit it is the recommended one, or the nearest below that leaves the spec's epochs enough weight
    updates, or any that the spec allows: a warm-up has to end within the training, and batch normalisation needs two
    samples in the last mini-batch. Raises
    AttemptLostError, OutOfMemoryError where no size fits, and InvalidRequestError where the spec allows none.
    """
    measured = [BatchSizeMeasured.from_dict(one) for one in sizes]
    noise = None if noise_scale is None else NoiseScale.from_dict(noise_scale)
    choice = choose(measured, noise, taken.job.plan["train_samples"])
    if choice.recommended is None:
        raise OutOfMemoryError(f"No batch size fits. {choice.reasons['fits']}")
    fitting = [one.batch_size for one in measured if one.fits]
    with db.write() as tx:
        attempts.renew(tx, taken.attempt_id, lease_seconds)
        row = jobs.get(tx, taken.job.id, lock=True)
        planned = _planned(tx, row, list(_by_preference(fitting, choice.recommended, row)))
        _put(tx, row, planned, choice)
        told = {**choice.as_dict(), "sizes": list(sizes), "noise_scale": noise_scale}
        events.append(tx, row.number, "batch_size.chosen", {"batch_size": planned.spec.batch_size, **told})
        return _again(tx, taken)


def settle_unmeasured(db: Database, taken: Claim, *, lease_seconds: float) -> Claim:
    """Put the provisional size into the spec of a job that will not train: it only brings out what it has."""
    with db.write() as tx:
        attempts.renew(tx, taken.attempt_id, lease_seconds)
        row = jobs.get(tx, taken.job.id, lock=True)
        _put(tx, row, _planned(tx, row, [row.plan["batch_size"]]), None)
        return _again(tx, taken)


def _by_preference(fitting: Sequence[int], recommended: int, row: JobRow) -> Iterator[int]:
    below = [size for size in reversed(fitting) if size <= recommended]
    samples, epochs = row.plan["train_samples"], row.spec["epochs"]
    yield from (size for size in below if samples // size * epochs >= FEW_ITERATIONS)
    yield from below
    yield from (size for size in fitting if size > recommended)
    # Where one sample more than a power of two are trained on, each power of two leaves one over.
    yield from range(recommended - 1, max(recommended - NEAREST, 0), -1)


def _planned(tx: Transaction, row: JobRow, sizes: Sequence[int]) -> PlannedJob:
    """Plan with the first size that the spec allows. Raises InvalidRequestError when there is none."""
    *others, last = sizes
    for size in others:
        try:
            return _planned_with(tx, row, size)
        except InvalidRequestError:
            continue
    return _planned_with(tx, row, last)


def _planned_with(tx: Transaction, row: JobRow, size: int) -> PlannedJob:
    return plan_job(tx, JobSpec.model_validate({**row.spec, "batch_size": size}))


def _put(tx: Transaction, row: JobRow, planned: PlannedJob, choice: BatchSizeChoice | None) -> None:
    size = planned.spec.batch_size
    advice = [] if choice is None else [_advice(size, choice)]
    store(tx, replace(row, advice=advice), planned)
    if row.initial_spec is not None:  # amended while it was measured
        jobs.amend(tx, row.number, initial_spec={**row.initial_spec, "batch_size": size})


def _advice(size: Any, choice: BatchSizeChoice) -> dict[str, Any]:
    said = choice.reasons["recommended"]
    if size != choice.recommended:
        said = (
            f"{said} Taken is {size}: with {choice.recommended} the job's epochs would be too few weight updates, "
            "or the rest of its spec does not allow it."
        )
    return {"code": MEASURED, "param": "batch_size", "message": f"Measured: {said}"}


def _again(tx: Transaction, taken: Claim) -> Claim:
    job = jobs.get(tx, taken.job.id)
    return replace(taken, job=job, amendments=tuple(amendments.of_job(tx, job.number)))
