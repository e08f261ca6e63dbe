"""Jobs side by side."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from epochd.api import examples
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, get_job_id
from epochd.api.negotiate import negotiate
from epochd.api.responses import describe
from epochd.contract.compare import ComparedCurves, Comparison
from epochd.jobs.compare import compare

MAX_JOBS: Final = 20
MAX_POINTS: Final = 10_000
_JSON: Final = "application/json"
_CSV: Final = "text/csv"
_OTHER: Final = "job_01k9v7g2b4n6q8s0t2w4x6z8ac"

router = APIRouter(route_class=GuardedRoute, tags=["metrics"])

EXAMPLE: Final[dict[str, Any]] = {
    "metric": "validation_loss",
    "mode": "min",
    "target": 0.5,
    "data": [
        {
            "id": examples.JOB_ID,
            "name": "digits-16",
            "status": "succeeded",
            "verdict": "good_fit",
            "batch_size": 16,
            "iterations_per_epoch": 90,
            "epochs": 3,
            "iterations": 270,
            "seconds": 0.21,
            "samples_per_second": 20528.6,
            "device": "cpu",
            "peak_memory_bytes": 412876800,
            "best_value": 0.2214,
            "best_epoch": 3,
            "final_value": 0.2214,
            "generalisation_gap": 0.0213,
            "noise": None,
            "epochs_to_target": 2,
            "iterations_to_target": 180,
            "seconds_to_target": 0.14,
        },
        {
            "id": _OTHER,
            "name": "digits-128",
            "status": "succeeded",
            "verdict": "underfitting",
            "batch_size": 128,
            "iterations_per_epoch": 12,
            "epochs": 2,
            "iterations": 24,
            "seconds": 0.04,
            "samples_per_second": 71850.0,
            "device": "cpu",
            "peak_memory_bytes": 415236096,
            "best_value": 1.2041,
            "best_epoch": 2,
            "final_value": 1.2041,
            "generalisation_gap": -0.1307,
            "noise": None,
            "epochs_to_target": None,
            "iterations_to_target": None,
            "seconds_to_target": None,
        },
    ],
    "differences": [{"path": "epochs", "values": [3, 2]}, {"path": "batch_size", "values": [16, 128]}],
    "curves": {
        "epoch": [1, 2, 3],
        "values": {examples.JOB_ID: [0.6203, 0.3052, 0.2214], _OTHER: [1.7718, 1.2041, None]},
    },
    "notes": [],
}
EXAMPLE_CSV: Final = f"epoch,{examples.JOB_ID},{_OTHER}\n1,0.6203,1.7718\n2,0.3052,1.2041\n3,0.2214,\n"


class ComparisonQuery(BaseModel, extra="forbid"):
    """The query of a comparison."""

    job: Annotated[
        list[str],
        Field(
            min_length=2,
            max_length=MAX_JOBS,
            description=f"The ids of 2 to {MAX_JOBS} jobs, repeated.",
            examples=[[examples.JOB_ID, _OTHER]],
        ),
    ]
    metric: Annotated[
        str | None,
        Field(
            description="An epoch metric; by default `validation_loss`, or `train_loss` where a job validates on none.",
            examples=["validation_accuracy"],
        ),
    ] = None
    target: Annotated[
        float | None,
        Field(
            allow_inf_nan=False,
            description="A value of the metric: how soon is each job at least as good?",
            examples=[0.5],
        ),
    ] = None
    points: Annotated[
        int, Field(ge=2, le=MAX_POINTS, description="At most so many epochs of the curves, evenly chosen.")
    ] = 500
    format: Annotated[
        str | None,
        Field(pattern="^(json|csv)$", description="`json` or `csv`; by default what `Accept` asks for."),
    ] = None


_CONTENT: Final[dict[str, Any]] = {
    _JSON: {"example": EXAMPLE},
    _CSV: {"schema": {"type": "string"}, "example": EXAMPLE_CSV},
}


@router.get(
    "/metrics/compare",
    operation_id="compare_jobs",
    summary="Put jobs side by side",
    response_model=Comparison,
    responses=describe(
        {200: {"description": "Figures and curves of all jobs; as CSV the curves.", "content": _CONTENT}},
        401,
        404,
        406,
        422,
        503,
    ),
)
async def compare_jobs(request: Request, query: Annotated[ComparisonQuery, Query()], db: DatabaseDep) -> Any:
    """What each job came to by one epoch metric, how soon, at which cost, and where their specs differ.

    Jobs in any status can be compared. The curves are aligned by epoch, and true values: none is an average.
    """
    kinds = {"json": _JSON, "csv": _CSV}
    kind = kinds[query.format] if query.format else negotiate(request.headers.get("accept"), [_JSON, _CSV])
    ids = [await get_job_id(one) for one in query.job]
    return await run_in_threadpool(_answer, db, ids, query, kind)


def _answer(db: Any, ids: list[str], query: ComparisonQuery, kind: str) -> Response:
    found = compare(db, ids, metric=query.metric, target=query.target, points=query.points)
    if kind == _JSON:
        return Response(found.model_dump_json(), media_type=_JSON)
    saved_as = {"Content-Disposition": f'attachment; filename="compare-{found.metric}.csv"'}
    return Response("".join(_rows(found.curves)), media_type=_CSV, headers=saved_as)


def _rows(curves: ComparedCurves) -> Iterator[str]:
    yield ",".join(["epoch", *curves.values]) + "\n"
    for epoch, *values in zip(curves.epoch, *curves.values.values(), strict=True):
        yield ",".join([str(epoch), *("" if value is None else repr(value) for value in values)]) + "\n"
