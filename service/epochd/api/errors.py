"""Domain errors become HTTP here, and nowhere else: every error is an RFC 9457 problem."""

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from epochd.api.validation import param_errors
from epochd.errors import (
    ArchiveUnreadableError,
    ConflictError,
    DatabaseUnavailableError,
    EpochdError,
    InsufficientStorageError,
    InvalidDatasetError,
    InvalidRequestError,
    NotFoundError,
    ParamError,
    PayloadTooLargeError,
    ServiceUnavailableError,
    UnauthorizedError,
)

log = logging.getLogger("epochd.api")

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 2
_REFERENCE: Final = "_epochd_reference"

STATUSES: Final[dict[type[EpochdError], HTTPStatus]] = {
    InvalidRequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    InsufficientStorageError: HTTPStatus.INSUFFICIENT_STORAGE,
    UnauthorizedError: HTTPStatus.UNAUTHORIZED,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    PayloadTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ServiceUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}
_HEADERS: Final[dict[HTTPStatus, dict[str, str]]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": str(RETRY_AFTER_SECONDS)},
}
# The names of RFC 9110, which Python 3.11 and 3.13 spell differently.
_TITLES: Final = {413: "Content Too Large", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
_CODES: Final = {
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.NOT_ACCEPTABLE: "not_acceptable",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "unsupported_media_type",
}


def problem(  # noqa: PLR0913 - the parts of a problem, all but the first three by name
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[ParamError] = (),
    place: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with a problem; ``errors`` is written for every 422, if only as an empty list.

    ``place`` says where in a file each of the errors is.
    """
    body = {
        "type": "about:blank",
        "title": _TITLES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors or status == HTTPStatus.UNPROCESSABLE_ENTITY:
        body["errors"] = [
            {"param": error.param, "message": error.message, "code": error.code, **(place or {})}
            for error in errors
        ]
    return Response(json.dumps(body), status, headers, PROBLEM_MEDIA_TYPE)


def problem_of(error: EpochdError) -> Response:
    """Answer with what a domain error means; one that is no caller's business is a 500 without its text."""
    status = next((STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES), None)
    if status is None:
        return unexpected(error)
    errors = error.errors if isinstance(error, InvalidRequestError) else ()
    # A file that is missing or damaged is so in two seconds, too.
    headers = None if isinstance(error, ArchiveUnreadableError) else _HEADERS.get(status)
    place = error.place if isinstance(error, InvalidDatasetError) else None
    return problem(status, error.code, public_message(error), errors=errors, place=place, headers=headers)


def public_message(error: EpochdError) -> str:
    """Say what callers may know: not the database's user, host or path, which are for the log."""
    if not isinstance(error, DatabaseUnavailableError):
        return error.message
    if _reference(error)[1]:
        log.warning("%s", error.message)
    return "The database does not answer or takes no writes; try again in a few seconds."


def unexpected(error: Exception) -> Response:
    """Answer 500 with a reference under which the log tells the story, and nothing of it to the caller."""
    reference, is_new = _reference(error)
    if is_new:
        log.error("unexpected error %s", reference, exc_info=error)
    detail = f"Something went wrong in the service. Its log has the details under the reference {reference}."
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail)


def _reference(error: Exception) -> tuple[str, bool]:
    """Name an error, and tell whether that is new: one that reaches many who asked together is logged once."""
    known = vars(error).get(_REFERENCE)
    if known is None:
        vars(error)[_REFERENCE] = known = secrets.token_hex(6)
        return known, True
    return str(known), False


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error as a problem."""
    app.add_exception_handler(EpochdError, _on_domain_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected_error)


async def _on_domain_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, EpochdError)
    return problem_of(error)


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_of(InvalidRequestError.of(*param_errors(error.errors(), error.body)))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, EpochdError):
        # FastAPI turns whatever is raised while it reads a body into a 400.
        return problem_of(error.__cause__)
    status = HTTPStatus(error.status_code)
    path, detail, headers = request.url.path, error.detail, error.headers
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_methods(request))
        detail, headers = f"{path} does not take {request.method}; use {allowed}.", {"Allow": allowed}
    elif status is HTTPStatus.NOT_FOUND:
        detail = f"There is nothing at {path}; /docs lists every path."
    return problem(status, _CODES.get(status, status.name.lower()), detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """List the methods that the path takes: the router knows those of the first matching route only."""
    routes = request.app.routes
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


async def _on_unexpected_error(_request: Request, error: Exception) -> Response:
    return unexpected(error)
