"""The formats of tables, and which of them a request wants."""

from typing import Annotated, Final

from pydantic import Field

from epochd.api.negotiate import negotiate
from epochd.store.files import Format

FormatParam = Annotated[
    Format | None, Field(description="The format; by default what `Accept` asks for.", examples=["csv"])
]
MEDIA_TYPES: Final[dict[Format, str]] = {
    "json": "application/json",
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
_FORMATS: Final[dict[str, Format]] = {media_type: name for name, media_type in MEDIA_TYPES.items()}


def choose_format(wanted: Format | None, accept: str | None) -> Format:
    """Choose by the ``format`` parameter, else by ``Accept``; raises a 406 when that allows none."""
    return wanted or _FORMATS[negotiate(accept, list(_FORMATS))]
