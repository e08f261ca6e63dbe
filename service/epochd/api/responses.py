"""What the OpenAPI document says about answers and errors."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from epochd.api.example_problems import CONFLICTS, PROBLEMS

PROBLEM_SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}

_DESCRIPTIONS: Final[dict[int, str]] = {
    401: "No valid API key; only where keys are configured.",
    404: "There is no such job, attempt or artifact.",
    406: "`Accept` allows none of the media types on offer.",
    408: "Nothing of the upload came for a minute.",
    413: "The body is larger than `EPOCHD_MAX_BODY_BYTES`.",
    415: "The body does not say that it is JSON.",
    416: "The range lies outside the file.",
    422: "The request cannot be carried out as it stands: `errors` has an entry for each parameter.",
    500: "An error of the service; its log has more under the reference in `detail`.",
    507: "The disk has no room for the data set; nothing of it was kept.",
    503: "The database does not answer; try again after `Retry-After` seconds.",
}
_ARCHIVED: Final = (
    " Or, with the code `archive_unreadable` and without `Retry-After`, the file that the job's iterations were moved "
    "to is missing or damaged."
)


def describe(
    answers: Mapping[int, dict[str, Any]],
    *problems: int,
    conflicts: Sequence[str] = (),
    archived: bool = False,
) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of an operation, and the errors with these statuses; 500 is always one of them.

    ``conflicts`` are the codes with which it answers 409; ``archived``, whether it may need an archived file.
    """
    described: dict[int | str, dict[str, Any]] = dict(answers.items())
    if conflicts:
        described[HTTPStatus.CONFLICT.value] = _conflict(conflicts)
    for status in (*problems, HTTPStatus.INTERNAL_SERVER_ERROR.value):
        described[status] = _problem(status)
    if archived:
        described[HTTPStatus.SERVICE_UNAVAILABLE.value]["description"] += _ARCHIVED
    return described


def _conflict(codes: Sequence[str]) -> dict[str, Any]:
    listed = " or ".join(f"`{code}`" for code in codes)
    shown = {code: CONFLICTS[code] for code in codes}
    content = {"application/problem+json": {"schema": PROBLEM_SCHEMA, "examples": shown}}
    return {"description": f"The state of things does not allow it: {listed}.", "content": content}


def _problem(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": PROBLEM_SCHEMA, "example": PROBLEMS[status]}}
    described: dict[str, Any] = {"description": _DESCRIPTIONS[status], "content": content}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        seconds = {"schema": {"type": "integer"}, "description": "Seconds to wait before trying again."}
        described["headers"] = {"Retry-After": seconds}
    if status == HTTPStatus.UNAUTHORIZED:
        described["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "`Bearer`"}}
    return described
