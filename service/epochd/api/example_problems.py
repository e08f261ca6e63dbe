"""The errors of the OpenAPI document's examples."""

from typing import Any, Final

from fastapi.openapi.models import Example

from epochd.api.examples import JOB_ID


def _problem(status: int, title: str, code: str, detail: str, *errors: dict[str, str]) -> dict[str, Any]:
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    return problem | ({"errors": list(errors)} if errors else {})


PROBLEMS: Final[dict[int, dict[str, Any]]] = {
    401: _problem(
        401,
        "Unauthorized",
        "unauthorized",
        "This service wants an API key: send 'Authorization: Bearer <key>'.",
    ),
    404: _problem(404, "Not Found", "job_not_found", f"there is no job '{JOB_ID}'"),
    406: _problem(
        406,
        "Not Acceptable",
        "not_acceptable",
        "This can be had as application/json, text/csv; 'Accept' allows none of these.",
    ),
    408: _problem(
        408, "Request Timeout", "upload_stalled", "Nothing of the upload came for 60 s; send it again."
    ),
    413: _problem(
        413,
        "Content Too Large",
        "payload_too_large",
        "The body may have at most 1048576 bytes (EPOCHD_MAX_BODY_BYTES).",
    ),
    415: _problem(
        415,
        "Unsupported Media Type",
        "unsupported_media_type",
        "The body must be JSON in UTF-8, with 'Content-Type: application/json'; got text/plain.",
    ),
    416: _problem(
        416,
        "Range Not Satisfiable",
        "range_not_satisfiable",
        "The file has 38696 bytes; ask for a range within them.",
    ),
    422: _problem(
        422,
        "Unprocessable Content",
        "invalid_request",
        "early_stopping.patience: must be at least 0; got -1",
        {
            "param": "early_stopping.patience",
            "message": "must be at least 0; got -1",
            "code": "out_of_range",
        },
    ),
    500: _problem(
        500,
        "Internal Server Error",
        "internal_error",
        "Something went wrong in the service. Its log has the details under the reference 5f3a9c1e7b20.",
    ),
    507: _problem(
        507,
        "Insufficient Storage",
        "disk_full",
        "The disk of the service has no room for this data set; nothing of it was kept. Remove data sets or jobs, or "
        "ask the operator.",
    ),
    503: _problem(
        503,
        "Service Unavailable",
        "database_unavailable",
        "the database postgresql://epochd@db:5432/epochd does not answer: connection refused",
    ),
}


def _conflict(summary: str, code: str, detail: str) -> Example:
    return {"summary": summary, "value": _problem(409, "Conflict", code, detail)}


CONFLICTS: Final[dict[str, Example]] = {
    "job_done": _conflict(
        "The job is done",
        "job_done",
        f"{JOB_ID} is succeeded; only a job that is not done can be amended.",
    ),
    "job_not_done": _conflict(
        "The job is not done",
        "job_not_done",
        f"{JOB_ID} is running; only a failed or cancelled job can be retried.",
    ),
    "job_succeeded": _conflict(
        "The job has succeeded",
        "job_succeeded",
        f"{JOB_ID} has succeeded: there is nothing to retry; send its spec again to train it once more.",
    ),
    "job_in_use": _conflict(
        "Another job starts from it",
        "job_in_use",
        f"job_01k9v7f6zqk3m5t8w2x4y6a8bd starts from {JOB_ID} and is not done; wait until it is, or cancel it.",
    ),
    "dataset_gone": _conflict(
        "Its data set was removed",
        "dataset_gone",
        f"dataset_01k9v7f6zqk3m5t8w2x4y6a8bc, which {JOB_ID} trains on, was removed: bring the data set again and send "
        "a new job.",
    ),
    "start_from_gone": _conflict(
        "The weights that it starts from are gone",
        "start_from_gone",
        f"{JOB_ID} starts from job_01k9v7f6zqk3m5t8w2x4y6a8bd, which was deleted: send a new job that starts from "
        "another.",
    ),
    "dataset_name_taken": _conflict(
        "The name is taken",
        "dataset_name_taken",
        "There is a data set 'flowers' already: send another `name`, or remove that one first.",
    ),
    "dataset_in_use": _conflict(
        "A job needs it",
        "dataset_in_use",
        f"flowers is needed by {JOB_ID}, which is not done; wait, or cancel first.",
    ),
    "dataset_built_in": _conflict(
        "It is built in", "dataset_built_in", "iris is built in and cannot be removed."
    ),
    "cancel_requested": _conflict(
        "The job is being cancelled",
        "cancel_requested",
        f"{JOB_ID} is about to be cancelled, which cannot be taken back; retry it once it is done.",
    ),
}
"""The 409 of each code."""
