"""What training measured: iterations in columns, epochs in rows, both also as files of any length."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from epochd.api import conditional, examples
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, JobIdDep
from epochd.api.download import Download, FileThreads, FileThreadsDep
from epochd.api.params import Attempt, Position, parse_fields
from epochd.api.responses import describe
from epochd.api.tabular import MEDIA_TYPES, FormatParam, choose_format
from epochd.contract.metrics import ITERATION_FIELDS, Epochs, Iterations
from epochd.errors import InvalidRequestError, ParamError
from epochd.store import curve, files, jobs, metrics, series
from epochd.store.database import Database, Transaction
from epochd.store.files import Format
from epochd.store.jobs import JobRow
from epochd.store.reduced import Reduction

DEFAULT_ITERATIONS: Final = 1000
MAX_ITERATIONS: Final = 100_000
DEFAULT_EPOCHS: Final = 1000
MAX_EPOCHS: Final = 10_000
FIELDS: Final = ("iteration", "epoch", *ITERATION_FIELDS)

router = APIRouter(route_class=GuardedRoute, tags=["metrics"])

_WHOLE: Final = (
    "A file without `limit` is the whole series, of any length, as it was when the answer began; if it cannot be "
    "completed, the connection is cut."
)
_LINK: Final = {
    "Link": {
        "description": 'The next page of a file with `limit`, as `rel="next"`, if there is one.',
        "schema": {"type": "string"},
    }
}
_DISPOSITION: Final = {
    "Content-Disposition": {"description": "The name to save a file under.", "schema": {"type": "string"}}
}


class IterationsQuery(BaseModel, extra="forbid"):
    """The query of a job's iterations."""

    after: Annotated[Position | None, Field(description="Only iterations beyond this one.", examples=[0])] = (
        None
    )
    up_to: Annotated[
        Position | None,
        Field(description="Only iterations up to this one, itself included.", examples=[1000]),
    ] = None
    limit: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_ITERATIONS,
            description=f"At most so many; by default {DEFAULT_ITERATIONS}, and in a file all.",
        ),
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
            description="The whole series, or the part of it that `after` and `up_to` bound, reduced to at most so "
            "many points.",
        ),
    ] = None
    reduction: Annotated[
        Reduction | None,
        Field(
            description="What `points` keeps of each of its equal buckets: `extremes` (the default), the iterations "
            "in which a chosen column is smallest and largest; `mean`, one point with the mean of each column.",
            examples=["mean"],
        ),
    ] = None
    format: FormatParam = None


class EpochsQuery(BaseModel, extra="forbid"):
    """The query of a job's epochs."""

    after: Annotated[Position, Field(description="Only epochs beyond this one.")] = 0
    limit: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_EPOCHS,
            description=f"At most so many; by default {DEFAULT_EPOCHS}, and in a file all.",
        ),
    ] = None
    attempt: Attempt = None
    format: FormatParam = None


def _described(
    description: str, shown: dict[str, Any], csv: str, ndjson: str, *, archived: bool = False
) -> Any:
    """Describe the answers of an endpoint that gives a table, as JSON or as a file."""
    text = {"type": "string"}
    content = {
        MEDIA_TYPES["json"]: {"example": shown},
        MEDIA_TYPES["csv"]: {"schema": text, "example": csv},
        MEDIA_TYPES["ndjson"]: {"schema": text, "example": ndjson},
        MEDIA_TYPES["parquet"]: {"schema": {"type": "string", "format": "binary"}},
    }
    headers = {**_LINK, **_DISPOSITION, **conditional.HEADERS}
    found = {"description": description, "headers": headers, "content": content}
    answers = {200: found, 304: conditional.NOT_MODIFIED}
    return describe(answers, 401, 404, 406, 422, 503, archived=archived)


@router.get(
    "/jobs/{job_id}/iterations",
    operation_id="list_iterations",
    summary="Read a job's iterations, in columns",
    response_model=Iterations,
    responses=_described(
        f"The iterations, ascending, as columns of equal length; or as rows of a file. {_WHOLE}",
        examples.ITERATIONS,
        examples.ITERATIONS_CSV,
        examples.ITERATIONS_NDJSON,
        archived=True,
    ),
)
async def list_iterations(
    request: Request,
    job_id: JobIdDep,
    query: Annotated[IterationsQuery, Query()],
    db: DatabaseDep,
    threads: FileThreadsDep,
) -> Any:
    """The job's one true curve: a later attempt replaces what an earlier one recorded from its start on."""
    kind = choose_format(query.format, request.headers.get("accept"))
    asked = _Asked(request, db, job_id, kind, threads)
    if kind == "json":
        return await run_in_threadpool(_iterations_as_json, asked, query)
    return await threads.run(_iterations_as_file, asked, query)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What both endpoints are asked."""

    request: Request
    db: Database
    job_id: str
    kind: Format
    threads: FileThreads

    def headers(self, job: JobRow, query: BaseModel) -> dict[str, str]:
        values = query.model_dump(mode="json", exclude={"format"})
        return conditional.headers_of(job, MEDIA_TYPES[self.kind], values)

    def knows(self, tx: Transaction, job: JobRow, attempt: int | None, headers: Mapping[str, str]) -> bool:
        """Whether the caller has the answer already; raises NotFoundError for an attempt that there is not."""
        known = conditional.is_known(self.request, headers)
        if known and attempt is not None:
            curve.segments(tx, job.number, attempt)  # `*` names answers that there are, and no others
        return known

    def download(
        self, what: str, chunks: Iterator[bytes], following: int | None, headers: Mapping[str, str]
    ) -> Response:
        """Answer with a file; with ``following`` it is a page, and the link leads to the next."""
        link = {}
        if following is not None:
            url = self.request.url.include_query_params(after=following)
            link["Link"] = f'<{url.path}?{url.query}>; rel="next"'
        return Download(
            chunks,
            self.threads,
            filename=f"{self.job_id}-{what}.{self.kind}",
            media_type=MEDIA_TYPES[self.kind],
            headers={**headers, **link},
        )


def _iterations_as_json(asked: _Asked, query: IterationsQuery) -> Response:
    fields = _checked(query)
    with asked.db.read() as tx:
        job = jobs.get(tx, asked.job_id)
        headers = asked.headers(job, query)
        if asked.knows(tx, job, query.attempt, headers):
            return conditional.not_modified(headers)
        if query.points is not None:
            body = _reduced(tx, job, query, query.points, fields)
        else:
            after, limit = query.after or 0, query.limit or DEFAULT_ITERATIONS
            body = metrics.iterations_json(
                tx, job, after=after, up_to=query.up_to, limit=limit, fields=fields, attempt=query.attempt
            )
    return Response(body, headers=headers, media_type=MEDIA_TYPES["json"])


def _iterations_as_file(asked: _Asked, query: IterationsQuery) -> Response:
    fields = _checked(query)
    with asked.db.read() as tx:
        job = jobs.get(tx, asked.job_id)
        headers = asked.headers(job, query)
        if asked.knows(tx, job, query.attempt, headers):
            return conditional.not_modified(headers)
        if query.points is not None:
            points = _reduced(tx, job, query, query.points, fields)
            return asked.download("iterations", files.of_points(asked.kind, points), None, headers)
        found = series.open_iterations(
            tx,
            job,
            after=query.after or 0,
            up_to=query.up_to,
            limit=query.limit,
            fields=fields,
            attempt=query.attempt,
        )
    chunks = files.of_iterations(asked.kind, asked.db, found)
    return asked.download("iterations", chunks, found.following, headers)


def _checked(query: IterationsQuery) -> list[str] | None:
    if query.points is not None and query.limit is not None:
        message = "reduces all iterations between 'after' and 'up_to': leave out 'limit'"
        raise InvalidRequestError.of(ParamError("points", message, "contradictory"))
    if query.points is None and query.reduction is not None:
        message = "says how to reduce the series to 'points': give these, too"
        raise InvalidRequestError.of(ParamError("reduction", message, "contradictory"))
    return parse_fields(query.fields, FIELDS)


def _reduced(
    tx: Transaction, job: JobRow, query: IterationsQuery, points: int, fields: Sequence[str] | None
) -> bytes:
    return metrics.reduced(
        tx,
        job,
        points,
        after=query.after or 0,
        up_to=query.up_to,
        fields=fields,
        attempt=query.attempt,
        reduction=query.reduction or "extremes",
    )


@router.get(
    "/jobs/{job_id}/epochs",
    operation_id="list_epochs",
    summary="Read a job's epochs",
    response_model=Epochs,
    responses=_described(
        f"The epochs, ascending. {_WHOLE}", examples.EPOCHS, examples.EPOCHS_CSV, examples.EPOCHS_NDJSON
    ),
)
async def list_epochs(
    request: Request,
    job_id: JobIdDep,
    query: Annotated[EpochsQuery, Query()],
    db: DatabaseDep,
    threads: FileThreadsDep,
) -> Any:
    """One row an epoch, with every metric by its name."""
    kind = choose_format(query.format, request.headers.get("accept"))
    asked = _Asked(request, db, job_id, kind, threads)
    if kind == "json":
        return await run_in_threadpool(_epochs_as_json, asked, query)
    return await threads.run(_epochs_as_file, asked, query)


def _epochs_as_json(asked: _Asked, query: EpochsQuery) -> Response:
    limit = query.limit or DEFAULT_EPOCHS
    with asked.db.read() as tx:
        job = jobs.get(tx, asked.job_id)
        headers = asked.headers(job, query)
        if asked.knows(tx, job, query.attempt, headers):
            return conditional.not_modified(headers)
        rows, following = metrics.epochs(tx, job, after=query.after, limit=limit, attempt=query.attempt)
    body = orjson.dumps({"data": [files.show_epoch(row) for row in rows], "next": following})
    return Response(body, headers=headers, media_type=MEDIA_TYPES["json"])


def _epochs_as_file(asked: _Asked, query: EpochsQuery) -> Response:
    with asked.db.read() as tx:
        job = jobs.get(tx, asked.job_id)
        headers = asked.headers(job, query)
        if asked.knows(tx, job, query.attempt, headers):
            return conditional.not_modified(headers)
        found = series.open_epochs(tx, job, after=query.after, limit=query.limit, attempt=query.attempt)
    return asked.download("epochs", files.of_epochs(asked.kind, asked.db, found), found.following, headers)
