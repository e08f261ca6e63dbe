"""The jobs: what was asked for, and what became of it.

Who moves a job from one status to another: the API inserts it as ``queued``; ``claim`` makes it ``running``;
the worker that holds the attempt, or the reaper when nobody does, makes it ``succeeded``, ``failed``,
``cancelled``, ``paused`` or ``queued`` again. The API moves what nobody holds: ``queued`` to ``paused`` and back,
both to ``cancelled``, and on a retry ``failed`` and ``cancelled`` to ``queued``. Each is one guarded UPDATE: zero
rows means that you lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Update, and_, bindparam, func, null, or_, select, true, update

from epochd.errors import NotFoundError
from epochd.store import amendments
from epochd.store.amendments import AmendmentRow
from epochd.store.cursors import number_of
from epochd.store.curve import Recorded, recorded
from epochd.store.database import Transaction
from epochd.store.tables import attempts, jobs
from epochd.store.types import now, seconds_from_now


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as it is queued; ``spec`` resolved, the rest as JSON-ready values."""

    id: str
    name: str | None
    spec: Mapping[str, Any]
    plan: Mapping[str, Any]
    advice: Sequence[Mapping[str, Any]]
    tags: Mapping[str, str]
    priority: int
    idempotency_key: str | None
    request_digest: str
    requires: str | None = None
    starts_from: str | None = None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it is stored: the columns of ``tables.jobs``, in their order."""

    number: int
    id: str
    name: str | None
    status: str
    stop_reason: str | None
    spec: dict[str, Any]
    plan: dict[str, Any]
    advice: list[dict[str, Any]]
    tags: dict[str, str]
    priority: int
    idempotency_key: str | None
    request_digest: str
    attempt: int
    version: int
    last_event: int
    epoch: int
    iteration: int
    progress: dict[str, Any] | None
    metrics: dict[str, float | None] | None
    early_stopping: dict[str, Any] | None
    diagnosis: dict[str, Any] | None
    selected_checkpoint: dict[str, Any] | None
    error: dict[str, Any] | None
    worker: str | None
    device: str | None
    available_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    cancel_keep: str | None
    cancel_grace_seconds: float | None
    pause_requested_at: datetime | None
    initial_spec: dict[str, Any] | None
    amendments: int
    recorded_at: datetime | None
    retried_after: int
    restarted_after: int
    requires: str | None
    starts_from: str | None

    @property
    def has_begun(self) -> bool:
        """Whether an attempt was ever made of it, or since it was retried from scratch."""
        return self.attempt > self.restarted_after

    @property
    def shown_iteration(self) -> int:
        """The newest iteration of what the job shows.

        ``iteration`` is what streams compare with: the newest attempt's own, 0 until that has recorded something.
        """
        if not self.has_begun:
            return 0
        return self.iteration or int((self.progress or {}).get("iteration") or 0)


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is now yours: ``attempt_id`` is the fence, ``attempt`` its number within the job.

    ``recorded`` bounds what may be resumed from; ``amendments`` are all that were asked for since training began with
    ``job.initial_spec``.
    """

    attempt_id: int
    attempt: int
    job: JobRow
    recorded: Recorded = field(default_factory=Recorded)
    amendments: tuple[AmendmentRow, ...] = ()


class Watched(NamedTuple):
    """As much of a job as tells whether something changed."""

    number: int
    version: int
    last_event: int
    epoch: int
    status: str
    iteration: int
    attempt: int


_JOBS = select(*jobs.c)
_BY_ID = _JOBS.where(jobs.c.id == bindparam("job_id"))
_BY_NUMBER = _JOBS.where(jobs.c.number == bindparam("job_number"))
_BY_IDS = _JOBS.where(jobs.c.id.in_(bindparam("job_ids", expanding=True)))
_VERSIONS = select(jobs.c.id, jobs.c.version).where(jobs.c.id.in_(bindparam("job_ids", expanding=True)))
_WATCHED = select(*(jobs.c[name] for name in Watched._fields))


def insert(tx: Transaction, job: NewJob) -> JobRow:
    """Queue a job.

    Raises (at the latest at the end of ``Database.write()``):
        DuplicateKeyError: when its id or idempotency key is stored already.

    """
    values = {name: getattr(job, name) for name in NewJob.__dataclass_fields__}
    times = {"created_at": now(), "available_at": now()}
    row = tx.execute(jobs.insert().values(**values, **times, status="queued").returning(*jobs.c)).one()
    return JobRow(*row)


def get(tx: Transaction, job_id: str, *, lock: bool = False) -> JobRow:
    """Read a job; with ``lock`` nobody else changes it before the transaction ends (write transactions only).

    Raises:
        NotFoundError: code ``job_not_found``.

    """
    query = _BY_ID.with_for_update() if lock else _BY_ID
    row = tx.execute(query, {"job_id": job_id}).one_or_none()
    if row is None:
        raise not_found(job_id)
    return JobRow(*row)


def by_number(tx: Transaction, job_number: int, *, lock: bool = False) -> JobRow | None:
    """Read a job by its number, None when there is none (any more); ``lock`` as in ``get``."""
    query = _BY_NUMBER.with_for_update() if lock else _BY_NUMBER
    row = tx.execute(query, {"job_number": job_number}).one_or_none()
    return None if row is None else JobRow(*row)


def several(tx: Transaction, job_ids: Sequence[str]) -> list[JobRow]:
    """Read these jobs; one that does not exist is missing."""
    return [JobRow(*row) for row in tx.execute(_BY_IDS, {"job_ids": job_ids})]


def versions(tx: Transaction, job_ids: Sequence[str]) -> dict[str, int]:
    """Read the versions of these jobs, which grow with every change of what they show; as ``several``."""
    return {row.id: row.version for row in tx.execute(_VERSIONS, {"job_ids": job_ids})}


def find_by_idempotency_key(tx: Transaction, key: str) -> JobRow | None:
    """Find the job that was created with this Idempotency-Key."""
    row = tx.execute(_JOBS.where(jobs.c.idempotency_key == key)).one_or_none()
    return None if row is None else JobRow(*row)


def page(  # noqa: PLR0913 - the filters are named
    tx: Transaction,
    *,
    limit: int,
    after: str | None = None,
    statuses: Sequence[str] = (),
    name: str | None = None,
    tags: Mapping[str, str | None] | None = None,
    search: str | None = None,
) -> tuple[list[JobRow], str | None]:
    """Read a page of jobs, newest first, and the cursor of the next page (None: that was the last).

    Jobs match when they have one of ``statuses`` (any, when empty), exactly this name and all of these tags;
    a tag of None may have any value. ``search`` stands, in any case, in the job's id or name, or in the name of its
    data set or model.

    Raises:
        InvalidRequestError: when ``after`` is no cursor that came from here.

    """
    query = _matching(statuses, name, tags or {})
    if search is not None:
        query = query.where(_mentions(search))
    if after is not None:
        query = query.where(jobs.c.number < number_of(after))
    rows = [JobRow(*row) for row in tx.execute(query.order_by(jobs.c.number.desc()).limit(limit + 1))]
    following = str(rows[limit - 1].number) if len(rows) > limit else None
    return rows[:limit], following


def _matching(statuses: Sequence[str], name: str | None, tags: Mapping[str, str | None]) -> Select[Any]:
    query = _JOBS
    if statuses:
        query = query.where(jobs.c.status.in_(statuses))
    if name is not None:
        query = query.where(jobs.c.name == name)
    for key, value in tags.items():
        stored = jobs.c.tags[key].as_string()
        query = query.where(stored.is_not(None) if value is None else stored == value)
    return query


def _mentions(text: str) -> ColumnElement[bool]:
    spec = jobs.c.spec
    places = (
        jobs.c.id,
        jobs.c.name,
        spec["dataset"].as_string(),  # of a synthetic one the whole object, whose name is in it
        spec["model"]["name"].as_string(),
    )
    return or_(*(place.icontains(text, autoescape=True) for place in places))


def delete(tx: Transaction, job_id: str) -> None:
    """Remove a job with all that it recorded; whether it may go is for the caller to say.

    Raises:
        NotFoundError: code ``job_not_found``.

    """
    if tx.execute(jobs.delete().where(jobs.c.id == job_id)).rowcount == 0:
        raise not_found(job_id)


def starting_from(tx: Transaction, job_id: str, done: Sequence[str]) -> list[str]:
    """List the ids of jobs that begin with the weights of this one and have none of the statuses ``done``."""
    query = select(jobs.c.id).where(jobs.c.starts_from == job_id, jobs.c.status.not_in(done))
    return list(tx.execute(query.order_by(jobs.c.number)).scalars())


def request_cancel(tx: Transaction, job_id: str, keep: str, grace_seconds: float) -> bool:
    """Ask the attempt of a running job to end; False when it is not running.

    Asked twice, the newer ``keep`` and ``grace_seconds`` count, from the moment of the first request. A pause that
    was asked for is overtaken.
    """
    statement = _changed().where(jobs.c.id == job_id, jobs.c.status == "running")
    asked = cancellation(keep, grace_seconds)
    return _won(tx, statement.values(**asked, pause_requested_at=null()))


def cancellation(keep: str, grace_seconds: float) -> dict[str, Any]:
    """Give the columns of a job whose cancellation is asked for; the moment is that of the first time."""
    asked_at = func.coalesce(jobs.c.cancel_requested_at, now())
    return {"cancel_requested_at": asked_at, "cancel_keep": keep, "cancel_grace_seconds": grace_seconds}


def request_pause(tx: Transaction, job_id: str) -> bool:
    """Ask the attempt of a running job to pause; False when it is not running, or to be cancelled.

    Asked twice, the moment of the first request stays.
    """
    statement = _changed().where(
        jobs.c.id == job_id, jobs.c.status == "running", jobs.c.cancel_requested_at.is_(None)
    )
    return _won(tx, statement.values(pause_requested_at=func.coalesce(jobs.c.pause_requested_at, now())))


def withdraw_pause(tx: Transaction, job_id: str) -> bool:
    """Let the attempt of a running job go on; False when nobody had asked it to pause."""
    statement = _changed().where(
        jobs.c.id == job_id, jobs.c.status == "running", jobs.c.pause_requested_at.is_not(None)
    )
    return _won(tx, statement.values(pause_requested_at=null()))


def claim(  # noqa: PLR0913 - what the slot has and lacks, by name
    tx: Transaction,
    *,
    worker: str,
    device: str,
    lease_seconds: float,
    refused: Sequence[str] = (),
    models: Mapping[str, Sequence[str]] | None = None,
) -> Claim | None:
    """Take the queued job of the highest priority, among equals the oldest, and begin an attempt of it.

    Jobs whose spec asks for one of the ``refused`` devices stay in the queue. A job that requires a model of the
    operator is taken only if ``models`` names it; the devices refused for that job are those given with the name. None
    when there is nothing to do. No job is ever given to two. What the job shows of earlier attempts stays until this
    one knows where it resumes, but for ``iteration``, which is that of the attempt.
    """
    candidate = (
        select(jobs.c.number)
        .where(jobs.c.status == "queued", jobs.c.available_at <= now())
        .where(or_(*(_can_train(*one) for one in [(None, refused), *(models or {}).items()])))
        .order_by(jobs.c.priority.desc(), jobs.c.number)
        .limit(1)
        .with_for_update(skip_locked=True)  # Postgres alone has and needs it; SQLite has one writer at a time
        .scalar_subquery()
    )
    row = tx.execute(
        _changed()
        .where(jobs.c.number == candidate, jobs.c.status == "queued")
        .values(
            status="running",
            attempt=jobs.c.attempt + 1,
            worker=worker,
            device=device,
            started_at=func.coalesce(jobs.c.started_at, now()),
            iteration=0,
            **dict.fromkeys(_OF_ANOTHER_ATTEMPT, null()),
        )
        .returning(*jobs.c)
    ).one_or_none()
    return None if row is None else _begin_attempt(tx, JobRow(*row), lease_seconds)


def _can_train(model: str | None, refused: Sequence[str]) -> ColumnElement[bool]:
    """Tell the jobs that require this model, or none, and do not ask for one of the ``refused`` devices."""
    device = jobs.c.spec["device"].as_string().not_in(refused) if refused else true()
    return and_(jobs.c.requires.is_(None) if model is None else jobs.c.requires == model, device)


_OF_ANOTHER_ATTEMPT = ("recorded_at", "selected_checkpoint", "error", "pause_requested_at")


def _begin_attempt(tx: Transaction, job: JobRow, lease_seconds: float) -> Claim:
    statement = attempts.insert().values(
        job_number=job.number,
        number=job.attempt,
        worker=job.worker,
        device=job.device,
        claimed_at=now(),
        lease_expires_at=seconds_from_now(lease_seconds),
    )
    attempt_id = tx.execute(statement.returning(attempts.c.id)).scalar_one()
    return Claim(
        attempt_id=attempt_id,
        attempt=job.attempt,
        job=job,
        recorded=recorded(tx, job.number),
        amendments=tuple(amendments.of_job(tx, job.number)),
    )


def transition(
    tx: Transaction, job_number: int, *, expected: Sequence[str], status: str, **columns: Any
) -> bool:
    """Move a job from one of the ``expected`` statuses to ``status`` and set ``columns``.

    False when it was in none of them. A value may be an SQL expression, such as ``types.now()``; None is NULL.
    """
    statement = _changed().where(jobs.c.number == job_number, jobs.c.status.in_(expected))
    return _won(tx, statement.values(status=status, **columns))


def amend(tx: Transaction, job_number: int, **columns: Any) -> None:
    """Set ``columns`` of a job whatever its status; the caller holds its row."""
    tx.execute(_changed().where(jobs.c.number == job_number).values(**columns))


def record_progress(tx: Transaction, job_number: int, *, attempt: int, **columns: Any) -> bool:
    """Set ``columns`` of a job that is running in this attempt, as of now; False when it is not, any more."""
    statement = _changed().where(
        jobs.c.number == job_number, jobs.c.status == "running", jobs.c.attempt == attempt
    )
    return _won(tx, statement.values(recorded_at=now(), **columns))


def watch(tx: Transaction, numbers: Sequence[int]) -> list[Watched]:
    """Read as much of these jobs as tells whether something changed; a deleted job is missing."""
    return [Watched(*row) for row in tx.execute(_WATCHED.where(jobs.c.number.in_(numbers)))]


def _changed() -> Update:
    return update(jobs).values(version=jobs.c.version + 1)


def _won(tx: Transaction, statement: Update) -> bool:
    return tx.execute(statement).rowcount == 1


def not_found(job_id: str) -> NotFoundError:
    """Make the error that says that there is no such job."""
    return NotFoundError(f"there is no job {job_id!r}", code="job_not_found")
