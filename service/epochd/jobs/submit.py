"""Plan a job, and queue it: validated, resolved, planned and stored with its first event in one transaction."""

import hashlib
import json
from dataclasses import dataclass

from ulid import ULID

from epochd.contract.job import Plan as PlanModel
from epochd.contract.job import PlannedJob
from epochd.contract.spec import JobSpec
from epochd.errors import DuplicateKeyError, IdempotencyKeyReusedError
from epochd.jobs import operator_models, use, warm_start
from epochd.jobs.known import Known
from epochd.jobs.resolve import advice_of, plan_of, resolve
from epochd.store import events, jobs
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow, NewJob


@dataclass(frozen=True, slots=True)
class Submitted:
    """A queued job; ``created`` is False when the Idempotency-Key had created it before."""

    row: JobRow
    created: bool


def plan_job(tx: Transaction, spec: JobSpec) -> PlannedJob:
    """Resolve and plan a spec without creating anything.

    Raises ``InvalidRequestError`` with everything that is wrong with it.
    """
    known = Known(tx)
    resolved = resolve(spec, known)
    plan = plan_of(resolved, known)
    advice = [*advice_of(resolved, plan), *operator_models.advice_of(resolved, known)]
    return PlannedJob(spec=resolved, plan=PlanModel(**plan.as_dict()), advice=advice)


def submit(db: Database, spec: JobSpec, idempotency_key: str | None = None) -> Submitted:
    """Queue a job, once for each idempotency key.

    Raises ``InvalidRequestError`` before anything is stored, and ``IdempotencyKeyReusedError`` when the key came
    before with another body.
    """
    digest = _digest(spec)
    with db.read() as tx:
        planned = plan_job(tx, spec)
    try:
        with db.write() as tx:
            return _replay(tx, idempotency_key, digest) or _insert(tx, planned, idempotency_key, digest)
    except DuplicateKeyError:
        # Two requests with one key at the same moment: the other one was first, and has committed.
        with db.read() as tx:
            replayed = _replay(tx, idempotency_key, digest)
        if replayed is None:
            raise
        return replayed


def _digest(spec: JobSpec) -> str:
    """Digest what was sent: the order of keys does not count, nor do defaults, which a later version may change."""
    sent = json.dumps(spec.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    return hashlib.sha256(sent.encode()).hexdigest()


def _replay(tx: Transaction, key: str | None, digest: str) -> Submitted | None:
    row = jobs.find_by_idempotency_key(tx, key) if key is not None else None
    if row is None:
        return None
    if row.request_digest != digest:
        message = f"Idempotency-Key {key!r} was used before with another body; send a new key for a new job."
        raise IdempotencyKeyReusedError.because(message)
    return Submitted(row, created=False)


def _insert(tx: Transaction, planned: PlannedJob, key: str | None, digest: str) -> Submitted:
    spec = planned.spec
    warm_start.hold(tx, spec)
    row = jobs.insert(
        tx,
        NewJob(
            id=f"job_{ULID()}".lower(),
            name=spec.name,
            spec=spec.model_dump(mode="json"),
            plan=planned.plan.model_dump(),
            advice=[advice.model_dump() for advice in planned.advice],
            tags=spec.tags,
            priority=spec.priority,
            idempotency_key=key,
            request_digest=digest,
            requires=operator_models.requirement(spec),
            starts_from=spec.start_from.job if spec.start_from is not None else None,
        ),
    )
    use.note(tx, row.number, row.spec)
    events.append(tx, row.number, "job.queued", {"plan": row.plan, "priority": row.priority})
    return Submitted(jobs.get(tx, row.id), created=True)
