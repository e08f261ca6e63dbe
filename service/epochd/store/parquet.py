"""Parquet files of any length, written part by part as they are read.

polars writes row groups; what is left is the footer that joins them. (Its own streaming writer keeps one of its few
threads for as long as a slow reader takes; here nobody waits for a reader, and an error is raised where it happens.)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy.typing as npt

from epochd.contract.metrics import ITERATION_FIELDS
from epochd.store import thrift
from epochd.store.thrift import I64, LIST, Field, List, Struct

if TYPE_CHECKING:  # polars takes longer to import than an API should take to start
    from polars import DataFrame, Series
    from polars._typing import PolarsDataType

Column = npt.NDArray[Any] | Sequence[Any]

ROW_GROUP: Final = 65_536
"""Rows of a row group; smaller parts are gathered."""

_MAGIC: Final = b"PAR1"
# The numbers of fields in parquet.thrift.
_FILE_ROWS, _FILE_ROW_GROUPS = 3, 4
_GROUP_COLUMNS, _GROUP_OFFSET, _GROUP_ORDINAL = 1, 5, 7
_CHUNK_METADATA = 3
_CHUNK_OFFSETS = (2, 4, 6)  # file, offset index, column index
_METADATA_OFFSETS = (9, 10, 11, 14)  # data page, index page, dictionary page, bloom filter


def iteration_types(names: Iterable[str]) -> dict[str, "PolarsDataType"]:
    """Give the types of iterations' columns: ``attempt``, ``iteration``, ``epoch`` and what was recorded."""
    import polars as pl  # noqa: PLC0415 - see above

    known = {"attempt": pl.Int32, "iteration": pl.Int64, "epoch": pl.Int64}
    return {name: pl.Float32 if name in ITERATION_FIELDS else known[name] for name in names}


def epoch_types(names: Iterable[str]) -> dict[str, "PolarsDataType"]:
    """Give the types of epochs' columns; all but ``epoch`` and ``is_best`` are measured."""
    import polars as pl  # noqa: PLC0415 - see above

    known = {"epoch": pl.Int64, "is_best": pl.Boolean}
    return {name: known.get(name, pl.Float64) for name in names}


def write(
    target: Path | BinaryIO,
    parts: Iterable[Mapping[str, Column]],
    columns: Mapping[str, "PolarsDataType"],
) -> int:
    """Write a file and give the number of its rows; each part holds all ``columns``, of equal length.

    NaN and None become null. Memory holds a row group. Whatever ``parts`` raises comes out here; a path is then
    left without a file.

    Raises:
        OSError: the target takes no more.

    """
    if isinstance(target, Path):
        return _write_path(target, parts, columns)
    encoder = _Encoder(columns)
    for chunk in encoder.encode(parts):
        target.write(chunk)
    return encoder.rows


def _write_path(
    path: Path, parts: Iterable[Mapping[str, Column]], columns: Mapping[str, "PolarsDataType"]
) -> int:
    try:
        with path.open("wb") as file:
            return write(file, parts, columns)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def encode(parts: Iterable[Mapping[str, Column]], columns: Mapping[str, "PolarsDataType"]) -> Iterator[bytes]:
    """Give the bytes of the same file, a row group or so at a time; nothing is held in between."""
    return _Encoder(columns).encode(parts)


class _Encoder:
    """One file on its way: what was written of it so far, but for the bytes themselves."""

    def __init__(self, columns: Mapping[str, "PolarsDataType"]) -> None:
        self.rows = 0
        self._columns = columns
        self._bytes = 0
        self._groups: list[Struct] = []

    def encode(self, parts: Iterable[Mapping[str, Column]]) -> Iterator[bytes]:
        footer: Struct | None = None
        for frame in self._gathered(parts):
            body, footer = _row_groups(frame)
            yield self._add(body, footer)
        if footer is None:
            body, footer = _row_groups(self._frame({name: [] for name in self._columns}))
            yield self._add(body, footer)
        footer[_FILE_ROWS] = Field(I64, self.rows)
        footer[_FILE_ROW_GROUPS] = Field(LIST, List(thrift.STRUCT, self._groups))
        written = thrift.dump(footer)
        yield written + len(written).to_bytes(4, "little") + _MAGIC

    def _gathered(self, parts: Iterable[Mapping[str, Column]]) -> Iterator["DataFrame"]:
        import polars as pl  # noqa: PLC0415 - see above

        frames: list[DataFrame] = []
        for part in parts:
            frames.append(self._frame(part))
            if sum(frame.height for frame in frames) >= ROW_GROUP:
                yield pl.concat(frames)
                frames = []
        if frames:
            yield pl.concat(frames)

    def _frame(self, part: Mapping[str, Column]) -> "DataFrame":
        import polars as pl  # noqa: PLC0415 - see above

        return pl.DataFrame([_series(name, part[name], dtype) for name, dtype in self._columns.items()])

    def _add(self, body: bytes, footer: Struct) -> bytes:
        """Note the row groups of a small file, whose body moves to where the large one ends."""
        head = b"" if self._bytes else _MAGIC
        self._bytes += len(head)
        for group in footer[_FILE_ROW_GROUPS].value.elements:
            _move(group, self._bytes - len(_MAGIC))
            if _GROUP_ORDINAL in group:
                group[_GROUP_ORDINAL] = Field(group[_GROUP_ORDINAL].type, min(len(self._groups), 2**15 - 1))
            self._groups.append(group)
        self._bytes += len(body)
        self.rows += footer[_FILE_ROWS].value
        return head + body


def _series(name: str, values: Column, dtype: "PolarsDataType") -> "Series":
    import polars as pl  # noqa: PLC0415 - see above

    series = pl.Series(name, values, dtype=dtype)
    return series.fill_nan(None) if dtype.is_float() else series


def _row_groups(frame: "DataFrame") -> tuple[bytes, Struct]:
    """Write a file of its own, and give what is between its magic number and its footer, and the footer."""
    written = BytesIO()
    frame.write_parquet(written, compression="zstd", row_group_size=ROW_GROUP)
    data = written.getvalue()
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return data[len(_MAGIC) : end], thrift.parse(data[end:-8])


def _move(group: Struct, by: int) -> None:
    """Add to all that is counted from the file's beginning."""
    _shift(group, (_GROUP_OFFSET,), by)
    for chunk in group[_GROUP_COLUMNS].value.elements:
        _shift(chunk, _CHUNK_OFFSETS, by)
        _shift(chunk[_CHUNK_METADATA].value, _METADATA_OFFSETS, by)


def _shift(struct: Struct, numbers: Sequence[int], by: int) -> None:
    for number in numbers:
        if number in struct:
            kind, offset = struct[number]
            struct[number] = Field(kind, offset + by)
