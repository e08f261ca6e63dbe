"""Named arrays in files, read a few rows at a time: NPZ, of which nothing is ever unpickled, and safetensors."""

import math
import tempfile
import tokenize
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import safetensors

from epochd.datasets.raw import Array
from epochd.datasets.readers import archive
from epochd.datasets.readers.archive import Archive
from epochd.datasets.reading import Limits, Source
from epochd.errors import InvalidDatasetError

_BYTES_AT_ONCE: Final = 4 * 2**20
_MAX_ROW_BYTES: Final = 2**30
_SUFFIX: Final = ".npy"
_HEADERS: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_TENSOR_TYPES: Final = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4", "U64": "u8",
    "I64": "i8", "F16": "f2", "F32": "f4", "F64": "f8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NamedArray:
    """An array in a file. ``read(rows)`` gives it from the beginning, at most so many rows at a time."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int], Iterator[Array]]

    @property
    def row_bytes(self) -> int:
        """What one row takes."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    def chunks(self) -> Iterator[Array]:
        """Go through all rows, some megabytes at a time."""
        if self.row_bytes > _MAX_ROW_BYTES:
            message = f"One row of {self.name!r} takes {self.row_bytes} bytes; at most {_MAX_ROW_BYTES} are accepted."
            raise InvalidDatasetError(message, "sample_too_large", column=self.name)
        return self.read(max(1, _BYTES_AT_ONCE // max(1, self.row_bytes)))


@contextmanager
def npz(source: Source, limits: Limits, folder: Path) -> Iterator[Mapping[str, NamedArray]]:
    """Open what ``numpy.savez`` wrote; ``folder`` takes what has to be unpacked before it can be read by rows."""
    with archive.opened(source, limits) as opened:
        arrays = [
            _npy(opened, member, folder) for member in opened.members if member.filename.endswith(_SUFFIX)
        ]
        yield {array.name: array for array in arrays}


@contextmanager
def tensors(source: Source) -> Iterator[Mapping[str, NamedArray]]:
    """Open a safetensors file, which is mapped."""
    try:
        file: Any = safetensors.safe_open(source.path, "numpy")
    except safetensors.SafetensorError as error:
        message = f"{source.name} is not a whole safetensors file ({error}); was it cut short? Send it again."
        raise InvalidDatasetError(message, "damaged_file", file=source.name) from None
    with file:
        yield {name: _tensor(name, file.get_slice(name)) for name in sorted(file.keys())}


def _tensor(name: str, tensor: Any) -> NamedArray:
    shape, dtype = tuple(tensor.get_shape()), _TENSOR_TYPES.get(tensor.get_dtype())
    if dtype is None:
        message = (
            f"{name!r} is of type {tensor.get_dtype()}, which cannot be read; save it as float32 or integers."
        )
        raise InvalidDatasetError(message, "unsupported_type", column=name)

    def read(rows: int) -> Iterator[Array]:
        return (tensor[start : min(start + rows, shape[0])] for start in range(0, shape[0], rows))

    return NamedArray(name, shape, np.dtype(dtype), read)


def _npy(opened: Archive, member: zipfile.ZipInfo, folder: Path) -> NamedArray:
    name = member.filename.removesuffix(_SUFFIX)
    with opened.open(member) as stream:
        shape, fortran, dtype = _header(stream, member)
        start = stream.tell()
    if start + dtype.itemsize * math.prod(shape) != member.file_size:
        message = (
            f"{member.filename} has {member.file_size - start} bytes of data, where its header says {shape}."
        )
        raise InvalidDatasetError(message, "damaged_file", file=member.filename)

    def read(rows: int) -> Iterator[Array]:
        with opened.open(member) as stream:
            stream.read(start)
            # Rows of an array in Fortran's order are scattered all over it.
            scattered = fortran and len(shape) > 1
            yield from (_scattered if scattered else _in_order)(stream, shape, dtype, rows, folder)

    return NamedArray(name, shape, dtype, read)


def _in_order(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], rows: int, _folder: Path
) -> Iterator[Array]:
    row_bytes = dtype.itemsize * math.prod(shape[1:])
    for start in range(0, shape[0], rows):
        count = min(rows, shape[0] - start)
        content = stream.read(count * row_bytes)
        if len(content) < count * row_bytes:
            raise EOFError("it ends too early")
        yield (
            np.frombuffer(content, dtype).reshape(count, *shape[1:])
            if row_bytes
            else np.empty((count, *shape[1:]))
        )
    stream.read(1)  # to its end: only there is the checksum compared


def _scattered(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], rows: int, folder: Path
) -> Iterator[Array]:
    with tempfile.TemporaryFile(dir=folder) as file:
        while content := stream.read(_BYTES_AT_ONCE):
            file.write(content)
        file.flush()
        if math.prod(shape) == 0:
            return
        mapped = np.memmap(file, dtype, "r", shape=shape, order="F")
        for start in range(0, shape[0], rows):
            yield np.ascontiguousarray(mapped[start : start + rows])


def _header(stream: IO[bytes], member: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        read = _HEADERS[np.lib.format.read_magic(stream)]
        shape, fortran, dtype = read(stream)
    except (KeyError, ValueError, TypeError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        message = f"{member.filename} is not an array as NumPy saves them ({str(error)[:200]})."
        raise InvalidDatasetError(message, "damaged_file", file=member.filename) from None
    _check_type(member, shape, dtype)
    return shape, fortran, dtype


def _check_type(member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        message = (
            f"{member.filename} holds Python objects, which are never unpickled; save numbers, or strings by "
            ".astype('U')."
        )
        raise InvalidDatasetError(message, "pickled_objects", file=member.filename)
    if any(length < 0 for length in shape):
        message = f"{member.filename} has the shape {shape}; no length may be negative."
        raise InvalidDatasetError(message, "damaged_file", file=member.filename)
