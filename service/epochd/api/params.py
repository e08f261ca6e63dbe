"""Query parameters that several endpoints take."""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Header, Request
from pydantic import Field

from epochd.errors import InvalidRequestError, ParamError

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

Position = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Attempt = Annotated[
    int | None,
    Field(ge=1, le=100_000, description="What this attempt recorded, instead of the job's one true curve."),
]


async def get_idempotency_key(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="1 to 255 visible ASCII characters that name this request: sent again with the same "
            "key and body, it gives the first answer again instead of a second job.",
            examples=["4c1d8f4e-7a53-4f0e-9a55-2f6f5f0a9d10"],
        ),
    ] = None,
) -> str | None:
    """Give the Idempotency-Key.

    Raises:
        InvalidRequestError: it is not 1 to 255 visible ASCII characters, or comes twice.

    """
    if len(request.headers.getlist("idempotency-key")) > 1:
        raise _bad_key("must come once")
    if idempotency_key is not None and not _is_key(idempotency_key):
        raise _bad_key("must be 1 to 255 visible ASCII characters, without spaces")
    return idempotency_key


def _is_key(text: str) -> bool:
    return 1 <= len(text) <= 255 and all("!" <= character <= "~" for character in text)  # noqa: PLR2004 - the contract


def _bad_key(message: str) -> InvalidRequestError:
    return InvalidRequestError.of(ParamError("Idempotency-Key", message, "invalid_idempotency_key"))


def parse_tags(tags: Sequence[str]) -> dict[str, str | None]:
    """Read ``key:value`` and ``key``; None stands for any value.

    Raises:
        InvalidRequestError: one key is asked to have two values.

    """
    wanted: dict[str, str | None] = {}
    for tag in tags:
        key, colon, value = tag.partition(":")
        if colon and wanted.get(key, value) not in (value, None):
            message = f"asks for two values of {key!r}; a job has one"
            raise InvalidRequestError.of(ParamError("tag", message, "contradictory"))
        wanted[key] = value if colon else wanted.get(key)
    return wanted


def parse_fields(fields: Sequence[str], known: Sequence[str]) -> list[str] | None:
    """Read field names, repeated or separated by commas; None when none is given: all.

    Raises:
        InvalidRequestError: one is not known.

    """
    names = [name.strip() for field in fields for name in field.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        message = f"must be one or more of {', '.join(known)}; got {unknown[0][:80]!r}"
        raise InvalidRequestError.of(ParamError("fields", message, "not_one_of"))
    return names or None
