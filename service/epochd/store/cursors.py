"""Where a page of a list goes on: the number of its last row, as text that callers send back."""

from typing import Final

from epochd.errors import InvalidRequestError, ParamError

MAX_NUMBER: Final = 2**63 - 1
"""The largest that either database keeps."""


def number_of(cursor: str) -> int:
    """Read a cursor.

    Raises:
        InvalidRequestError: when it did not come from here.

    """
    if cursor.isascii() and cursor.isdigit() and int(cursor) <= MAX_NUMBER:
        return int(cursor)
    raise InvalidRequestError.of(
        ParamError("after", "must be the `next` of an earlier page of this list", "invalid_cursor")
    )
