"""Rows as files: CSV and NDJSON, made from columns."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field

from epochd.api.negotiate import negotiate

Format = Literal["json", "csv", "ndjson"]
FormatParam = Annotated[
    Format | None, Field(description="The format; by default what `Accept` asks for.", examples=["csv"])
]
MEDIA_TYPES: Final[dict[Format, str]] = {
    "json": "application/json",
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
}
_FORMATS: Final[dict[str, Format]] = {media_type: name for name, media_type in MEDIA_TYPES.items()}


def choose_format(wanted: Format | None, accept: str | None) -> Format:
    """Choose by the ``format`` parameter, else by ``Accept``; raises a 406 when that allows none."""
    return wanted or _FORMATS[negotiate(accept, list(_FORMATS))]


def write(kind: Format, columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Write columns of equal length as ``csv`` (null is empty) or ``ndjson`` (an object a line)."""
    rows = zip(*columns.values(), strict=True)
    return _csv(list(columns), rows) if kind == "csv" else _ndjson(list(columns), rows)


def _csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    # JSON's spelling: the same in every format.
    return ("true" if value else "false") if isinstance(value, bool) else value


def _ndjson(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    return b"".join(orjson.dumps(dict(zip(names, row, strict=True))) + b"\n" for row in rows)
