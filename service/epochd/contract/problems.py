"""Errors on the wire: RFC 9457 problem details."""

from epochd.contract.base import Response


class ProblemError(Response):
    """What is wrong with one parameter."""

    param: str
    message: str
    code: str
    file: str | None = None
    """Of a data set: the file, or a name within the archive. Left out, as the next two, where it has no meaning."""
    row: int | None = None
    """Counted from 1, a header not included."""
    column: str | None = None


class Problem(Response):
    """An error: what is wrong, and what would be right."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemError] = []
