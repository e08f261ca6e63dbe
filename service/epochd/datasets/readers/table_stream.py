"""Arrow's stream format, batch by batch: polars would read all of it into memory.

A stream is cut at its messages (Arrow's columnar format, "Encapsulated message format" and "IPC streaming format");
each record batch, with the schema and the dictionaries before it, is a stream by itself, which polars reads.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

import polars as pl

from epochd.datasets.readers.table_scan import Batches, Table, batch_rows
from epochd.datasets.readers.table_text import damaged
from epochd.datasets.reading import Source

_MARKER: Final = b"\xff\xff\xff\xff"
_END: Final = _MARKER + bytes(4)
_SCHEMA: Final = 1
_DICTIONARY: Final = 2
_MAX_DESCRIPTION: Final = 2**26
_HEADER_TYPE: Final = 1
_BODY_LENGTH: Final = 3


@dataclass(frozen=True, slots=True)
class _Message:
    kind: int
    content: bytes


def stream_table(source: Source) -> Table:
    """Make a table of a file in Arrow's stream format. Raises InvalidDatasetError (``damaged_file``)."""
    with source.path.open("rb") as file:
        first = next(_messages(file, source), None)
    if first is None or first.kind != _SCHEMA:
        raise damaged(source, "Arrow: it does not begin with a schema")
    schema = dict(_read(first.content, source).schema)

    def scan(columns: list[str]) -> Batches:
        for batch in _batches(source):
            yield from batch.select(columns).iter_slices(batch_rows(len(columns)))

    return Table(source, "arrow", schema, typed=True, scan=scan)


def _batches(source: Source) -> Iterator[pl.DataFrame]:
    start = b""
    with source.path.open("rb") as file:
        for message in _messages(file, source):
            if message.kind in (_SCHEMA, _DICTIONARY):
                start += message.content
            else:
                yield _read(start + message.content, source)


def _read(content: bytes, source: Source) -> pl.DataFrame:
    try:
        return pl.read_ipc_stream(content + _END)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(source, f"Arrow: {(str(error).splitlines() or [''])[0]}") from error


def _messages(file: BinaryIO, source: Source) -> Iterator[_Message]:
    while (marker := file.read(8)) and marker != _END:
        length = int.from_bytes(marker[4:], "little")
        if marker[:4] != _MARKER or length > _MAX_DESCRIPTION:
            raise damaged(source, "Arrow: a message does not begin where it should")
        description = file.read(length)
        try:
            kind, body_length = _described(description)
        except struct.error as error:
            raise damaged(source, "Arrow: it ends within a message") from error
        body = file.read(max(0, body_length))
        if len(description) < length or len(body) < body_length:
            raise damaged(source, "Arrow: it ends within a message")
        yield _Message(kind, marker + description + body)


def _described(description: bytes) -> tuple[int, int]:
    """Read the type of a message and how many bytes follow it, from the table that flatbuffers makes of them."""
    (table,) = struct.unpack_from("<I", description)
    (back,) = struct.unpack_from("<i", description, table)
    fields = table - back

    def place(field: int) -> int:
        (size,) = struct.unpack_from("<H", description, fields)
        at = 4 + 2 * field
        return int(struct.unpack_from("<H", description, fields + at)[0]) if at < size else 0

    kind, length = place(_HEADER_TYPE), place(_BODY_LENGTH)
    return (
        int(struct.unpack_from("<B", description, table + kind)[0]) if kind else 0,
        int(struct.unpack_from("<q", description, table + length)[0]) if length else 0,
    )
