"""Data sets in a folder: an array a file, and ``dataset.json``, which is written last and says what they are."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import numpy as np
import numpy.typing as npt

from epochd.datasets.info import DatasetInfo
from epochd.datasets.raw import Array, RawData

DESCRIPTION: Final = "dataset.json"
FORMAT_VERSION: Final = 1
TARGETS: Final = "y"


class StoredWriter:
    """Writes the parts of a data set, each as it comes, several rows at a time; nothing is held in memory.

    The digest is over names, types, shapes and bytes (little-endian, row by row), so it does not depend on how many
    rows came at a time, and over what the data are (columns, classes, …), but not what they are called as a whole: the
    same numbers with other classes are other data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts: dict[str, _Part] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self._parts.values():
            part.file.close()

    @property
    def bytes(self) -> int:
        """What was written so far."""
        return sum(part.bytes for part in self._parts.values())

    def rows(self, name: str) -> int:
        """How many rows a part has so far."""
        return self._parts[name].rows if name in self._parts else 0

    def append(self, name: str, rows: Array) -> None:
        """Add rows to a part: all of one type, and of one shape but for the first axis.

        ``name`` is a key of ``RawData.parts``, or ``y``. Raises OSError when the disk is full.
        """
        if name not in self._parts:
            self._parts[name] = _Part(self.folder / f"{name}.bin", rows)
        self._parts[name].append(rows)

    def finish(self, info: DatasetInfo) -> str:
        """Put everything on the disk, the description last; gives the digest."""
        for part in self._parts.values():
            part.sync()
        digest = self._digest(info)
        description = {
            "format_version": FORMAT_VERSION,
            "digest": digest,
            "info": info.as_dict(),
            "parts": {name: part.as_dict() for name, part in sorted(self._parts.items())},
        }
        with (self.folder / DESCRIPTION).open("w") as file:
            json.dump(description, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        return digest

    def _digest(self, info: DatasetInfo) -> str:
        parts = {name: [*part.as_dict().values(), part.sha256] for name, part in sorted(self._parts.items())}
        meaning = {key: value for key, value in info.as_dict().items() if key not in ("name", "description")}
        content = json.dumps({"parts": parts, "info": meaning}, sort_keys=True)
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


class _Part:
    def __init__(self, path: Path, first: Array) -> None:
        self.file: BinaryIO = path.open("xb")
        self.rows = self.bytes = 0
        self._dtype = first.dtype.newbyteorder("<")
        self._row_shape = first.shape[1:]
        self._digest = hashlib.sha256()

    def append(self, rows: Array) -> None:
        assert rows.shape[1:] == self._row_shape, (rows.shape, self._row_shape)
        assert rows.dtype.newbyteorder("<") == self._dtype, (rows.dtype, self._dtype)
        content = np.ascontiguousarray(rows, dtype=self._dtype).data.cast("B") if rows.size else b""
        self.file.write(content)
        self._digest.update(content)
        self.rows += len(rows)
        self.bytes += len(content)

    def sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def as_dict(self) -> dict[str, Any]:
        return {"dtype": self._dtype.str, "shape": [self.rows, *self._row_shape]}

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def open_stored(folder: Path) -> RawData:
    """Map a data set that ``StoredWriter`` has finished. Raises FileNotFoundError."""
    description = json.loads((folder / DESCRIPTION).read_bytes())
    parts = {name: _mapped(folder / f"{name}.bin", part) for name, part in description["parts"].items()}
    y = parts.pop(TARGETS)
    return RawData(DatasetInfo.from_dict(description["info"]), parts, y, description["digest"])


def _mapped(path: Path, part: Mapping[str, Any]) -> npt.NDArray[Any]:
    shape, dtype = tuple(part["shape"]), np.dtype(part["dtype"])
    # An empty file cannot be mapped.
    return np.memmap(path, dtype, "r", shape=shape) if np.prod(shape) else np.empty(shape, dtype)
