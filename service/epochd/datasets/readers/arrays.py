"""NPZ and safetensors: an array of samples and an array of targets, which need no more explaining than their shapes."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from epochd.datasets.info import Column, DatasetInfo, Kind
from epochd.datasets.raw import Array
from epochd.datasets.readers import array_files
from epochd.datasets.readers.archive import check_unpacked
from epochd.datasets.readers.array_files import NamedArray
from epochd.datasets.readers.targets import Target, Targets
from epochd.datasets.reading import Contents, Limits, Options, Source
from epochd.datasets.stored import StoredWriter
from epochd.errors import InvalidDatasetError

SAMPLES: Final = ("x", "X")
TARGETS: Final = ("y", "Y")
CHANNELS: Final = (1, 3, 4)
MAX_TABLE_COLUMNS: Final = 4096
PREVIEW_ROWS: Final = 5
PREVIEW_COLUMNS: Final = 20
_SMALLEST_SIDE: Final = 2
_TYPES: Final = {
    "c": "complex numbers; send real and imaginary parts as two channels",
    "M": "dates; send numbers, or a table as Parquet",
    "m": "durations; send numbers, or a table as Parquet",
    "U": "strings; send numbers, or a table as Parquet",
    "S": "strings; send numbers, or a table as Parquet",
    "V": "records; send numbers, or a table as Parquet",
}


def read_npz(source: Source, options: Options, limits: Limits, writer: StoredWriter) -> Contents:
    """Read arrays ``x`` and ``y``, or those that ``features`` and ``target`` name, of any shape."""
    with array_files.npz(source, limits, writer.folder) as arrays:
        return _read(arrays, "npz", options, limits, writer)


def read_safetensors(source: Source, options: Options, limits: Limits, writer: StoredWriter) -> Contents:
    """Read tensors ``x`` and ``y``, or those that ``features`` and ``target`` name, of any shape."""
    with array_files.tensors(source) as arrays:
        return _read(arrays, "safetensors", options, limits, writer)


def _read(
    arrays: Mapping[str, NamedArray], name: str, options: Options, limits: Limits, writer: StoredWriter
) -> Contents:
    x = _chosen(arrays, options.features, SAMPLES, "features")
    y = _chosen(arrays, options.target, TARGETS, "target")
    _check_shapes(x, y)
    samples = Samples(x)
    check_unpacked(samples.bytes + 8 * math.prod(y.shape), limits)
    target = _write_targets(y, options, writer)
    samples.write(writer)
    info = samples.info(options.name, y.name, target)
    preview = _preview(samples, y)
    return Contents(info, name, preview, [*samples.notes(), *target.notes, *_unused(arrays, x, y)])


class Samples:
    """What the samples of an array count as, told from its shape and type, and on their way to the writer.

    ``(n, columns)`` is a table, in which NaN is a missing value; ``(n, c, h, w)`` with 1, 3 or 4 channels are images,
    as are ``(n, h, w, c)``, whose axes are moved, and bytes of ``(n, h, w)``; anything else is an array.
    """

    def __init__(self, x: NamedArray) -> None:
        self._x = x
        self._last = False
        self.kind, self.shape = self._interpretation()
        self.dtype = np.dtype(np.uint8 if x.dtype == np.uint8 and self.kind == "image" else np.float32)
        self._missing = np.zeros(self.shape[0] if self.kind == "table" else 0, np.int64)

    @property
    def bytes(self) -> int:
        """What all samples will take."""
        return self._x.shape[0] * math.prod(self.shape) * self.dtype.itemsize

    def write(self, writer: StoredWriter) -> None:
        """Convert and check all samples."""
        row, part = 0, "numbers" if self.kind == "table" else "x"
        for chunk in self._x.chunks():
            rows = self.arranged(chunk)
            if self.dtype != np.uint8:
                rows = self._numbers(rows, row)
            writer.append(part, np.ascontiguousarray(rows))
            row += len(rows)

    def arranged(self, rows: Array) -> Array:
        """Rows in the shape that samples are stored in."""
        if self._last:
            return np.moveaxis(rows, -1, 1)
        return rows.reshape(len(rows), *self.shape)

    def info(self, name: str, target_name: str, target: Target) -> DatasetInfo:
        """Describe the data set, once everything is written."""
        missing = enumerate(self._missing.tolist())
        columns = tuple(Column(f"x{index}", missing=count) for index, count in missing)
        several = target.targets > 1
        names = (
            tuple(f"{target_name}{index}" for index in range(target.targets)) if several else (target_name,)
        )
        samples = self._x.shape[0]
        return DatasetInfo(
            name, target.task, samples, self.shape, target.classes, target.targets, self._description(), self.kind,
            columns, names, target.counts,
        )  # fmt: skip

    def notes(self) -> list[dict[str, str]]:
        """Say what was made of the array, where something else could have been."""
        notes = [{"code": "kind_inferred", "message": self._inferred()}]
        if self._x.dtype.itemsize > 4 and self._x.dtype.kind in "iuf":  # noqa: PLR2004 - bytes of a float32
            text = f"{self._x.name!r} came as {self._x.dtype.name} and is kept as float32, with 7 digits."
            notes.append({"code": "precision_reduced", "message": text})
        empty = [f"x{index}" for index in np.flatnonzero(self._missing == self._x.shape[0])]
        if empty:
            text = f"Columns without any value: {', '.join(empty[:PREVIEW_COLUMNS])}; they carry nothing."
            notes.append({"code": "empty_columns", "message": text})
        return notes

    def _interpretation(self) -> tuple[Kind, tuple[int, ...]]:
        shape = self._x.shape[1:]
        if len(shape) < 2:  # noqa: PLR2004 - a number or a row a sample
            width = math.prod(shape)
            return ("table" if width <= MAX_TABLE_COLUMNS else "array"), (width,)
        if len(shape) == 2 and self._x.dtype == np.uint8 and min(shape) >= _SMALLEST_SIDE:  # noqa: PLR2004
            return "image", (1, *shape)
        if len(shape) == 3 and self._x.dtype.kind in "uf":  # noqa: PLR2004 - channels, height, width
            if shape[0] in CHANNELS and min(shape[1:]) >= _SMALLEST_SIDE:
                return "image", shape
            if shape[2] in CHANNELS and min(shape[:2]) >= _SMALLEST_SIDE:
                self._last = True
                return "image", (shape[2], shape[0], shape[1])
        return "array", shape

    def _numbers(self, rows: Array, first: int) -> npt.NDArray[np.float32]:
        with np.errstate(over="ignore"):
            numbers = rows.astype(np.float32)
        if np.isinf(numbers).any():
            raise self._bad_value(rows, first, np.isinf(numbers), "infinite_value")
        missing = np.isnan(numbers)
        if self.kind == "table":
            self._missing += missing.sum(axis=0)
        elif missing.any():
            raise self._bad_value(rows, first, missing, "missing_value")
        return numbers

    def _bad_value(
        self, rows: Array, first: int, bad: npt.NDArray[np.bool_], code: str
    ) -> InvalidDatasetError:
        index = tuple(int(at[0]) for at in np.nonzero(bad))
        value, row = rows[index], first + index[0] + 1
        right = (
            "finite values below 3.4e38"
            if code == "infinite_value"
            else f"a number; {self.kind}s have no gaps"
        )
        column = f"x{index[1]}" if self.kind == "table" else self._x.name
        message = f"Row {row} of {self._x.name!r} has the value {value} at {list(index[1:])}; send {right}."
        return InvalidDatasetError(message, code, row=row, column=column)

    def _description(self) -> str:
        size = "x".join(map(str, self.shape[1:] if self.kind == "image" else self.shape))
        if self.kind == "image":
            return f"Images of {size} pixels with {self.shape[0]} channel{'s' if self.shape[0] > 1 else ''}."
        return f"A table of {size} columns." if self.kind == "table" else f"Arrays of shape {size}."

    def _inferred(self) -> str:
        came, taken = self._x.shape, {"table": "a table", "image": "images", "array": "arrays"}[self.kind]
        moved = "; the last axis, the channels, was moved to the front" if self._last else ""
        hint = ""
        if self.kind == "array":
            hint = ". To have images, send (samples, channels, height, width) with 1, 3 or 4 channels"
        return f"{self._x.name!r} of shape {came} and type {self._x.dtype.name} was taken for {taken}{moved}{hint}."


def _chosen(
    arrays: Mapping[str, NamedArray], given: tuple[str, ...] | None, default: tuple[str, ...], param: str
) -> NamedArray:
    if given is not None and len(given) != 1:
        message = f"Name one array; {len(given)} were named."
        raise InvalidDatasetError(message, "one_array_only", param=param)
    for name in given or default:
        if name in arrays:
            return arrays[name]
    wanted, there = (given or default)[0], ", ".join(map(repr, list(arrays)[:20])) or "none"
    message = f"There is no array {wanted!r} in the file; there are: {there}. Name one by {param}."
    raise InvalidDatasetError(message, "missing_array", param=param, column=wanted)


def _check_shapes(x: NamedArray, y: NamedArray) -> None:
    if x.name == y.name:
        message = f"{x.name!r} cannot be both features and target."
        raise InvalidDatasetError(message, "target_is_feature", param="target", column=x.name)
    if x.dtype.kind in _TYPES:
        message = f"{x.name!r} holds {_TYPES[x.dtype.kind]}."
        raise InvalidDatasetError(message, "non_numeric_array", column=x.name)
    if not x.shape or not y.shape:
        message = f"{(y if x.shape else x).name!r} is a single number; its first axis must be the samples."
        raise InvalidDatasetError(message, "no_samples_axis", column=(y if x.shape else x).name)
    if x.shape[0] != y.shape[0]:
        message = f"{x.name!r} has {x.shape[0]} rows and {y.name!r} has {y.shape[0]}; both need one for each sample."
        raise InvalidDatasetError(message, "row_mismatch", column=y.name)
    if math.prod(x.shape) == 0:
        message = f"{x.name!r} of shape {x.shape} is empty; send at least two samples."
        raise InvalidDatasetError(message, "empty_file", column=x.name)


def _write_targets(y: NamedArray, options: Options, writer: StoredWriter) -> Target:
    if y.dtype.kind in "cMmV" or len(y.shape) > 2 or math.prod(y.shape) == 0:  # noqa: PLR2004 - samples and targets
        message = (
            f"{y.name!r} is of type {y.dtype.name} and shape {y.shape}; a target is an array (samples,) of labels or "
            "numbers, or (samples, targets) of numbers."
        )
        raise InvalidDatasetError(message, "target_shape", column=y.name)
    targets = Targets(writer, options, y.name)
    for chunk in y.chunks():
        rows = chunk[:, 0] if chunk.ndim > 1 and chunk.shape[1] == 1 else chunk
        if y.dtype.kind in "USb":
            targets.words(_words(rows, y, targets.rows))
        else:
            targets.numbers(rows)
    return targets.finish()


def _words(rows: Array, y: NamedArray, first: int) -> list[str]:
    if rows.ndim > 1:
        message = f"{y.name!r} has {rows.shape[1]} labels a sample; send one."
        raise InvalidDatasetError(message, "target_shape", column=y.name)
    if y.dtype.kind == "b":
        return ["true" if value else "false" for value in rows.tolist()]
    try:
        return [word.decode() if isinstance(word, bytes) else word for word in rows.tolist()]
    except UnicodeDecodeError:
        message = f"{y.name!r} has labels that are not UTF-8, after row {first}; save them by .astype('U')."
        raise InvalidDatasetError(message, "wrong_encoding", row=first + 1, column=y.name) from None


def _preview(samples: Samples, y: NamedArray) -> dict[str, Any]:
    x = next(_head(samples))
    labels = next(y.read(PREVIEW_ROWS)).tolist()
    if samples.kind == "table":
        shown = min(samples.shape[0], PREVIEW_COLUMNS)
        columns = [f"x{index}" for index in range(shown)]
        rows = [
            [None if math.isnan(value) else value for value in row[:shown]]
            for row in x.astype(float).tolist()
        ]
    else:
        columns = ["minimum", "mean", "maximum"]
        rows = [[float(row.min()), float(row.mean(dtype=np.float64)), float(row.max())] for row in x]
    return {
        "columns": [*columns, y.name],
        "rows": [[*row, _shown(label)] for row, label in zip(rows, labels, strict=True)],
    }


def _head(samples: Samples) -> Iterator[Array]:
    return (samples.arranged(rows) for rows in samples._x.read(PREVIEW_ROWS))  # noqa: SLF001


def _shown(label: Any) -> Any:
    return label.decode() if isinstance(label, bytes) else label


def _unused(arrays: Mapping[str, NamedArray], x: NamedArray, y: NamedArray) -> list[dict[str, str]]:
    others = [name for name in arrays if name not in {x.name, y.name}]
    if not others:
        return []
    text = f"Not used: {', '.join(others[:20])}; {x.name!r} has the samples and {y.name!r} the targets."
    return [{"code": "unused_arrays", "message": text}]
