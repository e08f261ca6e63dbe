"""Measured batch sizes: asked for, taken by a worker, and shown."""

from collections.abc import Sequence
from typing import Any, Final

from ulid import ULID

from epochd.contract.batch_size import BatchSizeMeasurement, BatchSizeRequest
from epochd.errors import InfrastructureError, InvalidRequestError, ParamError
from epochd.jobs import operator_models
from epochd.jobs.claim import refused_devices
from epochd.jobs.complete import error_dict
from epochd.jobs.known import Known
from epochd.jobs.resolve import plan_of, resolve
from epochd.store import datasets, measurements, workers
from epochd.store.database import Database, Transaction
from epochd.store.measurements import MeasurementRow
from epochd.store.workers import WorkerRow
from epochd.training.batch_size_choice import BatchSizeChoice, BatchSizeMeasured, NoiseScale, choose

MAX_TAKEN: Final = 3
"""So many workers may be gone while they measure; then it has failed."""
OF_A_PLAN: Final = frozenset({"batch_size", "drop_last"})
"""Parameters that a job has and a measurement has not."""


def ask(db: Database, asked: BatchSizeRequest) -> MeasurementRow:
    """Queue a measurement.

    Raises ``InvalidRequestError`` with everything that is wrong with it.
    """
    with db.write() as tx:
        known = Known(tx)
        try:
            spec = resolve(asked.as_spec(), known)
        except InvalidRequestError as error:
            raise InvalidRequestError.of(*map(_of_measurement, error.errors)) from None
        return measurements.insert(
            tx,
            id=f"batchsize_{ULID()}".lower(),
            spec=spec.model_dump(mode="json"),
            train_samples=plan_of(spec, known).train_samples,
            seconds=asked.seconds,
            requires=operator_models.requirement(spec),
        )


def _of_measurement(error: ParamError) -> ParamError:
    if error.param not in OF_A_PLAN:
        return error
    message = "Measuring takes 2 training samples or more, and here are fewer: take a larger data set."
    return ParamError("dataset", message, "too_few_samples")


def claim(
    db: Database, *, worker: str, device: str, lease_seconds: float, models: Sequence[str] = ()
) -> MeasurementRow | None:
    """Give the oldest measurement that this worker can do to it, or return None.

    As jobs are claimed: what only others can do is left to them. One whose workers were gone MAX_TAKEN times has
    failed.
    """
    with db.read() as tx:
        if not measurements.waiting(tx):
            return None
    with db.write() as tx:
        alive = workers.alive(tx)
        for row in measurements.waiting(tx):
            if _is_for(alive, row, device, models):
                taken = measurements.take(tx, row, worker=worker, device=device, lease_seconds=lease_seconds)
                if taken is not None and taken.taken <= MAX_TAKEN:
                    return taken
                if taken is not None:
                    measurements.finish(tx, taken, error_dict(_lost(taken)))
    return None


def _is_for(alive: Sequence[WorkerRow], row: MeasurementRow, device: str, models: Sequence[str]) -> bool:
    if row.requires is not None and row.requires not in models:
        return False
    return row.spec["device"] not in refused_devices(alive, device, row.requires)


def _lost(row: MeasurementRow) -> InfrastructureError:
    return InfrastructureError(
        f"{row.taken - 1} workers were gone while they measured; the last was {row.worker}.",
        code="worker_lost",
    )


def choice_of(row: MeasurementRow) -> BatchSizeChoice:
    """What to take, by what was measured so far."""
    sizes = [BatchSizeMeasured.from_dict(one) for one in row.sizes]
    noise = None if row.noise_scale is None else NoiseScale.from_dict(row.noise_scale)
    return choose(sizes, noise, row.train_samples)


def show(row: MeasurementRow, tx: Transaction) -> BatchSizeMeasurement:
    """A measurement as callers see it; nothing is recommended before all is measured."""
    choice = choice_of(row) if row.status == "succeeded" else None
    return BatchSizeMeasurement(
        id=row.id,
        status=row.status,
        done=row.is_done,
        dataset=_named(row.spec["dataset"], tx),
        model=row.spec["model"],
        train_samples=row.train_samples,
        seconds=row.seconds,
        sizes=row.sizes,
        noise_scale=row.noise_scale,
        fits=choice and choice.fits,
        fastest=choice and choice.fastest,
        recommended=choice and choice.recommended,
        reasons=choice and choice.reasons,
        error=row.error,
        worker=row.worker,
        device=row.device,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _named(dataset: Any, tx: Transaction) -> Any:
    """The data set by the name that callers know; one that was removed since by its id."""
    row = datasets.find(tx, dataset) if isinstance(dataset, str) else None
    return dataset if row is None else row.name
