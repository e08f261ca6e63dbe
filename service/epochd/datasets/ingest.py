"""From a file that somebody sent to the folder of arrays that jobs train from."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

from epochd.datasets import sniffing
from epochd.datasets.info import DatasetInfo
from epochd.datasets.reading import Contents, Limits, Options, Reader, Source
from epochd.datasets.stored import StoredWriter
from epochd.errors import InvalidDatasetError

_PACKAGE: Final = "epochd.datasets.readers"

READERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        sniffing.CSV: "table.read_csv",
        sniffing.PARQUET: "table.read_parquet",
        sniffing.ARROW: "table.read_arrow",
        sniffing.NPZ: "arrays.read_npz",
        sniffing.SAFETENSORS: "arrays.read_safetensors",
        sniffing.IMAGES: "images.read_zip",
        sniffing.JSON_LINES: "text.read_json_lines",
    }
)
"""The reader of each format, by module and name: loaded when it is wanted, with the libraries it needs."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """A data set that lies in its folder, finished; ``bytes`` is what its arrays take there."""

    info: DatasetInfo
    format: str
    preview: dict[str, Any]
    notes: list[dict[str, str]]
    digest: str
    bytes: int


def ingest(source: Source, options: Options, limits: Limits, folder: Path) -> Ingested:
    """Read a file of any known format into ``folder``, which is there and empty.

    Raises InvalidDatasetError, which always names a file, and OSError when the disk is full; what was written by then
    is left for the caller, whose folder it is, to remove.
    """
    try:
        reader = _reader(_format(source, options))
        with StoredWriter(folder) as writer:
            contents = reader(source, options, limits, writer)
            digest = writer.finish(contents.info)
            return _ingested(contents, digest, writer.bytes)
    except InvalidDatasetError as error:
        error.file = error.file or source.name
        raise


def _format(source: Source, options: Options) -> str:
    if options.format is None:
        return sniffing.sniff(source)
    if options.format not in READERS:
        message = f"There is no format {options.format!r}; there are: {', '.join(READERS)}."
        raise InvalidDatasetError(message, "unknown_format", param="format")
    return options.format


def _reader(name: str) -> Reader:
    module, _, function = READERS[name].partition(".")
    return cast("Reader", getattr(importlib.import_module(f"{_PACKAGE}.{module}"), function))


def _ingested(contents: Contents, digest: str, size: int) -> Ingested:
    return Ingested(contents.info, contents.format, contents.preview, contents.notes, digest, size)
