"""A caller changes the spec of a job that is not done.

What does not concern the training takes effect at once, and so does everything else while training has not begun.
Afterwards the spec shows the change at once, too, but the engine decides at which iteration it takes effect; the
recorder then writes the event.
"""

from contextlib import suppress
from typing import Any, Final

from epochd.contract.job import JobPatch, PlannedJob
from epochd.contract.spec import JobSpec
from epochd.errors import ConflictError, InvalidRequestError, ParamError
from epochd.jobs.lifecycle import is_done
from epochd.jobs.submit import plan_job
from epochd.store import amendments, events, jobs
from epochd.store.amendments import PARAMS, Field
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow

MEASURED: Final = "batch_size_measured"
AT_ONCE: Final = ("name", "tags", "priority")
OF_THE_TRAINING: Final[tuple[Field, ...]] = ("learning_rate", "epochs", "early_stopping")


def amend(db: Database, job_id: str, patch: JobPatch) -> JobRow:
    """Amend a job; what was sent with its present value changes nothing.

    Raises ``NotFoundError``; ``ConflictError`` (``job_done``); and ``InvalidRequestError`` when the amended spec would
    contradict itself, or ask for no more epochs than are completed.
    """
    with db.write() as tx:
        # Locked: two who amend at the same moment both count, and the job must not be claimed in between.
        row = jobs.get(tx, job_id, lock=True)
        if is_done(row.status):
            message = f"{job_id} is {row.status}; only a job that is not done can be amended."
            raise ConflictError(message, code="job_done")
        _amend(tx, row, patch)
        return jobs.get(tx, job_id)


def withdraw_pending(tx: Transaction, row: JobRow) -> None:
    """Take out of a job's spec what was asked for too late: its training ended before that could take effect.

    The caller holds the job's row.
    """
    asked = amendments.of_job(tx, row.number)
    if row.initial_spec is None or all(one.applied_at is not None for one in asked):
        return
    in_force = _values(row.initial_spec) | {
        str(one.field): one.value for one in asked if one.applied_at is not None
    }
    # The job must end, even if this version would no longer accept what it was trained with.
    with suppress(InvalidRequestError):
        store(tx, row, plan_job(tx, JobSpec.model_validate(_with_values(row.spec, in_force))))


def _amend(tx: Transaction, row: JobRow, patch: JobPatch) -> None:
    spec = _merged(JobSpec.model_validate(row.spec), patch)
    if spec.epochs != row.spec["epochs"]:
        _require_more_than_completed(row, spec.epochs)
    planned = plan_job(tx, spec)
    after = planned.spec.model_dump(mode="json")
    changed = {name: after[name] for name in AT_ONCE if after[name] != row.spec[name]}
    before, values = _values(row.spec), _values(after)
    training = [(field, values[field]) for field in OF_THE_TRAINING if values[field] != before[field]]
    if changed or training:
        store(tx, row, planned)
    if row.has_begun and (changed or training):
        # Kept as it was stored: a later version may write the same spec differently.
        jobs.amend(tx, row.number, initial_spec=row.initial_spec or row.spec)
    if row.has_begun and training:
        amendments.insert_many(tx, row.number, row.amendments, training)
    else:
        changed |= {PARAMS.get(field, field): value for field, value in training}
    if changed:
        position = {"epoch": row.epoch, "iteration": row.shown_iteration}
        events.append(tx, row.number, "spec.amended", {"changes": changed, **position})


def _merged(spec: JobSpec, patch: JobPatch) -> JobSpec:
    """Put what was sent into the spec; what the training depends on is resolved anew."""
    sent = patch.model_fields_set
    update = {name: getattr(patch, name) for name in sent}
    if patch.optimizer is not None:
        learning_rate = patch.optimizer.learning_rate
        update["optimizer"] = spec.optimizer.model_copy(update={"learning_rate": learning_rate})
    return spec.model_copy(update=update)


def _require_more_than_completed(row: JobRow, epochs: int) -> None:
    if epochs <= row.epoch:
        message = f"{row.epoch} epochs are completed: send more, or cancel the job and keep its last weights."
        raise InvalidRequestError.of(ParamError("epochs", message, "epochs_already_completed"))


def store(tx: Transaction, row: JobRow, planned: PlannedJob) -> None:
    """Write an amended spec, its plan and its advice, and what of it has a column of its own."""
    stored = planned.spec.model_dump(mode="json")
    # What was measured stays true.
    measured = [one for one in row.advice if one["code"] == MEASURED]
    jobs.amend(
        tx,
        row.number,
        spec=stored,
        plan=planned.plan.model_dump(),
        advice=[*measured, *(advice.model_dump() for advice in planned.advice)],
        **{name: stored[name] for name in AT_ONCE},
    )


def _values(spec: dict[str, Any]) -> dict[str, Any]:
    """Read from a stored spec the fields that concern the training."""
    return {
        "learning_rate": spec["optimizer"]["learning_rate"],
        "epochs": spec["epochs"],
        "early_stopping": spec["early_stopping"],
    }


def with_amendment(spec: dict[str, Any], field: Field, value: Any) -> dict[str, Any]:
    """Put one amendment into a stored spec."""
    return _with_values(spec, {**_values(spec), field: value})


def _with_values(spec: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    optimizer = {**spec["optimizer"], "learning_rate": values["learning_rate"]}
    others = {name: values[name] for name in ("epochs", "early_stopping")}
    return {**spec, **others, "optimizer": optimizer}
