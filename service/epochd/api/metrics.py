"""What training measured: iterations in columns, epochs in rows."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from epochd.api import examples
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, JobIdDep
from epochd.api.params import Attempt, Position, parse_fields
from epochd.api.responses import describe
from epochd.api.tabular import MEDIA_TYPES, Format, FormatParam, choose_format, write
from epochd.contract.metrics import ITERATION_FIELDS, Epochs, Iterations
from epochd.errors import InvalidRequestError, ParamError
from epochd.store import jobs, metrics
from epochd.store.database import Database
from epochd.store.metrics import EpochRow

MAX_ITERATIONS: Final = 100_000
MAX_EPOCHS: Final = 10_000
FIELDS: Final = ("iteration", "epoch", *ITERATION_FIELDS)

router = APIRouter(route_class=GuardedRoute, tags=["metrics"])

NEXT_LINK: Final = {
    "Link": {"description": 'The next page, as `rel="next"`, if there is one.', "schema": {"type": "string"}}
}


class IterationsQuery(BaseModel, extra="forbid"):
    """The query of a job's iterations."""

    after: Annotated[Position | None, Field(description="Only iterations beyond this one.", examples=[0])] = (
        None
    )
    limit: Annotated[
        int | None, Field(ge=1, le=MAX_ITERATIONS, description="At most so many; 1000 by default.")
    ] = None
    fields: Annotated[
        list[str],
        Field(
            max_length=20,
            description="Columns beside `iteration`, repeated or separated by commas: "
            f"{', '.join(FIELDS[1:])}.",
            examples=[["train_loss"]],
        ),
    ] = []
    attempt: Attempt = None
    points: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_ITERATIONS,
            description="The whole series reduced to at most so many iterations, its extremes kept.",
        ),
    ] = None
    format: FormatParam = None


class EpochsQuery(BaseModel, extra="forbid"):
    """The query of a job's epochs."""

    after: Annotated[Position, Field(description="Only epochs beyond this one.")] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_EPOCHS, description="At most so many.")] = 1000
    attempt: Attempt = None
    format: FormatParam = None


def _described(description: str, shown: dict[str, Any], csv: str, ndjson: str) -> Any:
    """Describe the answers of an endpoint that gives a table, as JSON or as a file."""
    text = {"type": "string"}
    content = {
        "application/json": {"example": shown},
        "text/csv": {"schema": text, "example": csv},
        "application/x-ndjson": {"schema": text, "example": ndjson},
    }
    found = {"description": description, "headers": NEXT_LINK, "content": content}
    return describe({200: found}, 401, 404, 406, 422, 503)


@router.get(
    "/jobs/{job_id}/iterations",
    operation_id="list_iterations",
    summary="Read a job's iterations, in columns",
    response_model=Iterations,
    responses=_described(
        "The iterations, ascending, as columns of equal length; or as rows of a file.",
        examples.ITERATIONS,
        examples.ITERATIONS_CSV,
        examples.ITERATIONS_NDJSON,
    ),
)
def list_iterations(
    request: Request, job_id: JobIdDep, query: Annotated[IterationsQuery, Query()], db: DatabaseDep
) -> Any:
    """The job's one true curve: a later attempt replaces what an earlier one recorded from its start on."""
    kind = choose_format(query.format, request.headers.get("accept"))
    body = _iterations(db, job_id, query)
    if kind == "json":
        return Response(body, media_type=MEDIA_TYPES[kind])
    found = orjson.loads(body)
    return _file(request, kind, found["columns"], found["next"])


def _iterations(db: Database, job_id: str, query: IterationsQuery) -> bytes:
    fields = parse_fields(query.fields, FIELDS)
    if query.points is not None and (query.after is not None or query.limit is not None):
        message = "reduces the whole series: leave out 'after' and 'limit'"
        raise InvalidRequestError.of(ParamError("points", message, "contradictory"))
    with db.read() as tx:
        job = jobs.get(tx, job_id)
        if query.points is not None:
            return metrics.reduced(tx, job, query.points, fields=fields, attempt=query.attempt)
        after, limit = query.after or 0, query.limit or 1000
        return metrics.iterations_json(
            tx, job, after=after, limit=limit, fields=fields, attempt=query.attempt
        )


@router.get(
    "/jobs/{job_id}/epochs",
    operation_id="list_epochs",
    summary="Read a job's epochs",
    response_model=Epochs,
    responses=_described(
        "The epochs, ascending.", examples.EPOCHS, examples.EPOCHS_CSV, examples.EPOCHS_NDJSON
    ),
)
def list_epochs(
    request: Request, job_id: JobIdDep, query: Annotated[EpochsQuery, Query()], db: DatabaseDep
) -> Any:
    """One row an epoch, with every metric by its name."""
    kind = choose_format(query.format, request.headers.get("accept"))
    with db.read() as tx:
        job = jobs.get(tx, job_id)
        rows, following = metrics.epochs(tx, job, after=query.after, limit=query.limit, attempt=query.attempt)
    data = [_epoch(row) for row in rows]
    if kind == "json":
        return Response(orjson.dumps({"data": data, "next": following}), media_type=MEDIA_TYPES[kind])
    return _file(request, kind, _columns(data), following)


def _epoch(row: EpochRow) -> dict[str, Any]:
    nothing = {"train_loss": None, "validation_loss": None}
    measured = {"learning_rate": row.learning_rate, "seconds": row.seconds, "is_best": row.is_best}
    return {"epoch": row.epoch} | nothing | row.metrics | measured


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _file(
    request: Request, kind: Format, columns: Mapping[str, Sequence[Any]], following: int | None
) -> Response:
    headers = {}
    if following is not None:
        url = request.url.include_query_params(after=following)
        headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return Response(write(kind, columns), headers=headers, media_type=MEDIA_TYPES[kind])
