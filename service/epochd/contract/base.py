"""What all wire models share."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer


class Request(BaseModel):
    """Sent by a caller: unknown keys, wrong types, NaN and infinity are errors."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Response(BaseModel):
    """Sent to a caller."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def rfc3339(moment: datetime) -> str:
    """Write a time as RFC 3339 in UTC with milliseconds: ``2026-01-31T09:00:00.123Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[datetime, PlainSerializer(rfc3339, return_type=str)]
