"""``labels.csv`` in an archive of images: a file and its label a row."""

import io
from dataclasses import dataclass
from typing import Final

import polars as pl

from epochd.datasets.readers.targets import Targets
from epochd.datasets.reading import Options
from epochd.errors import InvalidDatasetError

MAX_BYTES: Final = 256 * 2**20
FILE_COLUMNS: Final = ("file", "filename", "file_name", "image", "path", "id")
LABEL_COLUMNS: Final = ("label", "class", "target", "y")


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list says: ``files`` in its order, and ``labels``, a column of words or one or more of numbers."""

    name: str
    file_column: str
    files: list[str]
    labels: pl.DataFrame

    @property
    def shown(self) -> list[str]:
        """The labels as they were written."""
        return [", ".join(map(str, row)) for row in self.labels.head(100).rows()]

    def give(self, targets: Targets) -> None:
        """Hand all labels on."""
        first = self.labels.to_series(0)
        if first.dtype == pl.String:
            targets.words(first.to_list())
        else:
            values = self.labels.to_numpy()
            targets.numbers(values[:, 0] if values.shape[1] == 1 else values)


def check_size(size: int, name: str) -> None:
    """Refuse a list that is too large to be held in memory, before it is unpacked."""
    if size > MAX_BYTES:
        message = f"{name} takes {size} bytes; at most {MAX_BYTES} are accepted. Put images in a folder for each class."
        raise InvalidDatasetError(message, "too_large_unpacked", file=name)


def read(content: bytes, name: str, options: Options) -> Listed:
    """Read a list; the columns are told by their names, or the label by ``target``.

    Without a header the first column is the file, the second the label. Every error names the list and its row.
    """
    table = _table(_text(content, name), name, options)
    file_column = _column(table, FILE_COLUMNS, None, 0)
    labels = list(options.target or (_column(table, LABEL_COLUMNS, file_column, 1),))
    for label in labels:
        if label not in table.columns or label == file_column:
            message = f"{name} has no column {label!r} to predict; it has: {', '.join(table.columns)}."
            raise InvalidDatasetError(message, "unknown_target", param="target", file=name, column=label)
    _check_complete(table.select(file_column, *labels), name)
    return Listed(
        name, file_column, table[file_column].to_list(), _typed(table.select(labels), name, options)
    )


def _text(content: bytes, name: str) -> bytes:
    try:
        return content.decode("utf-8-sig").encode()
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start)
        message = f"{name} is not UTF-8 in line {row + 1}; save it as UTF-8."
        raise InvalidDatasetError(message, "wrong_encoding", file=name, row=row) from None


def _table(text: bytes, name: str, options: Options) -> pl.DataFrame:
    first = text.split(b"\n", 1)[0].decode().lower()
    words = {word.strip().strip('"') for word in first.split(",")}
    header = options.header if options.header is not None else bool(words & set(FILE_COLUMNS))
    try:
        table = pl.read_csv(io.BytesIO(text), infer_schema=False, has_header=header)
    except pl.exceptions.NoDataError:
        raise InvalidDatasetError(f"{name} is empty.", "empty_file", file=name) from None
    except pl.exceptions.PolarsError as error:
        message = f"{name} cannot be read as CSV ({str(error).splitlines()[0][:200]}); write a file and a label a row."
        raise InvalidDatasetError(message, "ragged_rows", file=name) from None
    if table.width < 2:  # noqa: PLR2004 - a file and a label
        message = f"{name} has {table.width} column; it needs two, separated by a comma: file and label."
        raise InvalidDatasetError(message, "missing_column", file=name)
    if table.is_empty():
        raise InvalidDatasetError(f"{name} has a header and no rows.", "no_rows", file=name)
    return table


def _column(table: pl.DataFrame, names: tuple[str, ...], taken: str | None, position: int) -> str:
    lower = {column.strip().lower(): column for column in table.columns if column != taken}
    return next((lower[name] for name in names if name in lower), table.columns[position])


def _check_complete(table: pl.DataFrame, name: str) -> None:
    for column in table:
        missing = column.is_null() | (column.str.strip_chars() == "")
        if missing.any():
            row = int(missing.arg_max() or 0) + 1
            message = f"Row {row} of {name} has no {column.name!r}; every row needs a file and a label."
            raise InvalidDatasetError(message, "missing_target", file=name, row=row, column=column.name)


def _typed(labels: pl.DataFrame, name: str, options: Options) -> pl.DataFrame:
    labels = labels.select(pl.all().str.strip_chars())
    for dtype in (pl.Int64, pl.Float64):
        numbers = labels.cast(dtype, strict=False)
        if not sum(numbers.null_count().row(0)):
            return numbers
    if options.task == "regression" or labels.width > 1:
        for column in labels:
            wrong = column.cast(pl.Float64, strict=False).is_null()
            if wrong.any():
                row = int(wrong.arg_max() or 0) + 1
                message = (
                    f"Row {row} of {name}: {column.name!r} is {column[row - 1]!r}; regression needs a number."
                )
                raise InvalidDatasetError(
                    message, "non_numeric_target", file=name, row=row, column=column.name
                )
    return labels
