"""Answers that a caller may keep: validators, and 304 for those who have the newest already (RFC 9110, section 13).

A job that is done changes no more unless it is retried, and then its version grows: what it answers is named by both.
While it is not done there is no validator, and nothing to compare.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import orjson
from fastapi import Request, Response

from epochd.jobs.lifecycle import is_done
from epochd.store.jobs import JobRow
from epochd.version import __version__

HEADERS: Final[dict[str, Any]] = {
    "ETag": {
        "description": "Names this answer, once the job is done: sent as `If-None-Match`, it asks for changes.",
        "schema": {"type": "string"},
        "example": '"42-17-1f0c9a5be2d84c37"',
    },
    "Cache-Control": {
        "description": "`private, no-cache`: it may be kept, and is to be asked for again.",
        "schema": {"type": "string"},
    },
    "Vary": {"description": "`Accept`.", "schema": {"type": "string"}},
}
"""What the OpenAPI document says about the headers of such an answer."""
NOT_MODIFIED: Final[dict[str, Any]] = {
    "description": "The job is done, and `If-None-Match` names the answer's `ETag`: the caller has it already.",
    "headers": HEADERS,
}
"""What it says about the 304."""

_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


def headers_of(job: JobRow, media_type: str, query: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Give the headers of an answer about a job; ``query`` is what else it depends on, JSON-ready."""
    headers = {"Cache-Control": "private, no-cache", "Vary": "Accept"}
    if is_done(job.status):
        headers["ETag"] = f'"{job.number}-{job.version}-{_digest(job.id, media_type, query)}"'
    return headers


def _digest(job_id: str, media_type: str, query: Mapping[str, Any] | None) -> str:
    # Another version may write the same numbers in other bytes.
    representation = [job_id, media_type, query, __version__, _writer(), orjson.__version__]
    return hashlib.sha256(orjson.dumps(representation, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


@cache
def _writer() -> str:
    return version("polars")


def is_known(request: Request, headers: Mapping[str, str]) -> bool:
    """Tell whether the caller has the answer with these headers already."""
    etag = headers.get("ETag")
    return etag is not None and names(request.headers.getlist("if-none-match"), etag)


def names(if_none_match: list[str], etag: str) -> bool:
    """Tell whether the lines of ``If-None-Match`` name a tag, weak or strong, or with ``*`` any."""
    given = ",".join(if_none_match)
    return given.strip() == "*" or etag in _TAG.findall(given)


def not_modified(headers: Mapping[str, str]) -> Response:
    """Answer 304."""
    return Response(status_code=304, headers=dict(headers))
