"""Errors on the wire: RFC 9457 problem details."""

from epochd.contract.base import Response


class ProblemError(Response):
    """What is wrong with one parameter."""

    param: str
    message: str
    code: str


class Problem(Response):
    """An error: what is wrong, and what would be right."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemError] = []
