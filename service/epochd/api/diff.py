"""Where two jobs differ."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path

from epochd.api import examples
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, SettingsDep, get_job_id
from epochd.api.requests import Nothing
from epochd.api.responses import describe
from epochd.contract.diff import JobDiff
from epochd.jobs.diff import diff

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

_OTHER: Final = "job_01k9v7g2b4n6q8s0t2w4x6z8ac"
_EXAMPLE: Final[dict[str, Any]] = {
    "a": examples.JOB_ID,
    "b": _OTHER,
    "spec": [
        {"path": "model.hidden_sizes", "a": [128], "b": [64, 64], "only_in": None},
        {"path": "early_stopping.patience", "a": 5, "b": 10, "only_in": None},
    ],
    "data": [],
    "environment": [{"path": "packages.torch", "a": "2.12.0", "b": "2.13.0", "only_in": None}],
    "results": [{"path": "metrics.validation_loss", "a": 0.15, "b": 0.12, "only_in": None}],
    "first_different_epoch": 1,
    "notes": [],
}


async def _a(a: Annotated[str, Path(description="The id of a job.", examples=[examples.JOB_ID])]) -> str:
    return await get_job_id(a)


async def _b(b: Annotated[str, Path(description="The id of another job.", examples=[_OTHER])]) -> str:
    return await get_job_id(b)


@router.get(
    "/jobs/{a}/diff/{b}",
    operation_id="diff_jobs",
    summary="Compare two jobs",
    responses=describe({200: {"content": {"application/json": {"example": _EXAMPLE}}}}, 401, 404, 422, 503),
)
def diff_jobs(
    a: Annotated[str, Depends(_a)],
    b: Annotated[str, Depends(_b)],
    db: DatabaseDep,
    settings: SettingsDep,
    _query: Nothing,
) -> JobDiff:
    """Where two specs, their data, environments and results differ; in any status, as far as it is known.

    What a job was trained on and with is in its artifact `receipt.json`, which it has once it is done.
    """
    return diff(db, settings.artifacts_dir, a, b)
