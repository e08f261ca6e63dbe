"""Whether the process is up, and whether it can do what it is for."""

from collections.abc import Callable
from typing import Any, Final, Literal

from fastapi import APIRouter, Response

from epochd.api.deps import DatabaseDep
from epochd.api.errors import PROBLEM_MEDIA_TYPE, RETRY_AFTER_SECONDS, public_message
from epochd.api.requests import StrictRoute
from epochd.contract.base import Response as Model
from epochd.contract.problems import Problem
from epochd.errors import EpochdError, ServiceUnavailableError
from epochd.store import workers
from epochd.store.database import Database
from epochd.store.migrate import check_current

_NO_WORKER: Final = (
    "no worker is alive; one just started takes seconds to load PyTorch, else start `epochd worker`"
)

router = APIRouter(route_class=StrictRoute, tags=["health"])


class Health(Model):
    """The process is up."""

    status: Literal["ok"]


class Check(Model):
    """One thing that the service needs."""

    ok: bool
    message: str


class Checks(Model):
    """Everything that the service needs."""

    database: Check
    """Reachable."""
    migrations: Check
    """The schema is the one that this version works with."""
    workers: Check
    """At least one lives."""


class Readiness(Model):
    """Jobs sent now will be trained."""

    status: Literal["ready"]
    checks: Checks


class NotReady(Problem):
    """Jobs sent now would wait or fail: `checks` says why."""

    checks: Checks


_CHECKS: Final = {
    "database": {"ok": True, "message": "It answers."},
    "migrations": {"ok": True, "message": "The schema is current."},
    "workers": {"ok": True, "message": "1 alive."},
}
_NOT_READY: Final[dict[str, Any]] = {
    "type": "about:blank",
    "title": "Service Unavailable",
    "status": 503,
    "detail": f"Not ready: {_NO_WORKER}.",
    "code": "not_ready",
    "checks": _CHECKS
    | {
        "workers": {
            "ok": False,
            "message": _NO_WORKER,
        }
    },
}


@router.get(
    "/healthz",
    operation_id="get_health",
    summary="Is the process up?",
    responses={200: {"content": {"application/json": {"example": {"status": "ok"}}}}},
)
async def get_health() -> Health:
    """Answers as long as the process does, whatever the database does."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Can it train?",
    response_model=Readiness,
    responses={
        200: {"content": {"application/json": {"example": {"status": "ready", "checks": _CHECKS}}}},
        503: {
            "description": "Not ready.",
            "content": {
                PROBLEM_MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/NotReady"},
                    "example": _NOT_READY,
                }
            },
        },
    },
)
def get_readiness(db: DatabaseDep) -> Any:
    """Whether the database is reachable, its schema current and a worker alive."""
    checks = _checks(db)
    wrong = [check.message for check in (checks.database, checks.migrations, checks.workers) if not check.ok]
    if not wrong:
        return Readiness(status="ready", checks=checks)
    problem = NotReady.model_validate(
        _NOT_READY | {"detail": f"Not ready: {'; '.join(dict.fromkeys(wrong))}.", "checks": checks}
    )
    body = problem.model_dump_json(exclude={"errors"})
    return Response(body, 503, {"Retry-After": str(RETRY_AFTER_SECONDS)}, PROBLEM_MEDIA_TYPE)


def _checks(db: Database) -> Checks:
    database = _check(lambda: _database(db))
    if not database.ok:
        # Asking a database that is away for more only takes longer.
        return Checks(database=database, migrations=database, workers=database)
    return Checks(
        database=database,
        migrations=_check(lambda: _migrations(db)),
        workers=_check(lambda: _workers(db)),
    )


def _check(look: Callable[[], str]) -> Check:
    try:
        return Check(ok=True, message=look())
    except EpochdError as error:
        return Check(ok=False, message=public_message(error))


def _database(db: Database) -> str:
    db.ping()
    return "It answers."


def _migrations(db: Database) -> str:
    check_current(db)
    return "The schema is current."


def _workers(db: Database) -> str:
    with db.read() as tx:
        alive = len(workers.alive(tx))
    if not alive:
        raise ServiceUnavailableError(_NO_WORKER)
    return f"{alive} alive."
