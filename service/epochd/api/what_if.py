"""What another early-stopping policy would have made of a job."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body

from epochd.api import examples
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, JobIdDep
from epochd.api.requests import Nothing
from epochd.api.responses import describe
from epochd.contract.what_if import WhatIf, WhatIfRequest
from epochd.jobs.what_if import what_if

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

REQUESTS: Final[dict[str, Any]] = {
    "grid": {
        "summary": "Every combination of two patiences and two thresholds",
        "value": {"patience": [3, 10], "min_delta": [0, "auto"]},
    },
    "other_metric": {
        "summary": "Another metric",
        "value": {"monitor": "validation_accuracy", "patience": 5, "start_epoch": 10},
    },
}
_POLICY: Final = examples.JOB["spec"]["early_stopping"]
EXAMPLE: Final[dict[str, Any]] = {
    "job": examples.JOB_ID,
    "status": "succeeded",
    "epochs": 32,
    "actual": {
        "policy": _POLICY,
        "stop_reason": "early_stopped",
        "epochs": 32,
        "iterations": 736,
        "seconds": 1.088,
        "best_epoch": 27,
        "best_value": 0.0862,
        "kept_epoch": 27,
        "kept_value": 0.0862,
    },
    "data": [
        {
            "policy": _POLICY | {"patience": 3},
            "stopped": True,
            "stopped_epoch": 24,
            "stop_reason": "early_stopped",
            "would_go_on": False,
            "best_epoch": 21,
            "best_value": 0.0871,
            "kept_epoch": 21,
            "kept_value": 0.0871,
            "value_lost": 0.0009,
            "epochs": 24,
            "iterations": 552,
            "seconds": 0.816,
            "epochs_saved": 8,
            "iterations_saved": 184,
            "seconds_saved": 0.272,
        },
        {
            "policy": _POLICY | {"patience": 10},
            "stopped": False,
            "stopped_epoch": None,
            "stop_reason": None,
            "would_go_on": True,
            "best_epoch": 27,
            "best_value": 0.0862,
            "kept_epoch": 27,
            "kept_value": 0.0862,
            "value_lost": 0.0,
            "epochs": 37,
            "iterations": 851,
            "seconds": 1.258,
            "epochs_saved": -5,
            "iterations_saved": -115,
            "seconds_saved": -0.17,
        },
    ],
    "next": None,
}


@router.post(
    "/jobs/{job_id}/early-stopping/what-if",
    operation_id="replay_early_stopping",
    summary="Replay other early-stopping policies over a job's epochs",
    responses=describe(
        {
            200: {
                "description": "What each policy would have done.",
                "content": {"application/json": {"example": EXAMPLE}},
            }
        },
        *(401, 404, 413, 415, 422, 503),
    ),
)
def replay_early_stopping(
    job_id: JobIdDep,
    db: DatabaseDep,
    _query: Nothing,
    asked: Annotated[WhatIfRequest | None, Body(openapi_examples=REQUESTS)] = None,
) -> WhatIf:
    """Where each policy would have stopped, what it would have kept, and what that saves or costs.

    Over all epochs that are recorded, of a job in any status; nothing is trained and nothing is changed. Policies are
    replayed as if they had been in force from the first epoch, with the code that training decides by. Without a body
    the job's own policy is. At most 1000 policies, which together look at 10 million epochs before they
    stop; with `min_delta` `auto` each counts as ten.
    """
    return what_if(db, job_id, asked or WhatIfRequest())
