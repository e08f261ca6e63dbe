"""What a reader is given, and what it gives: from one file to the arrays of a data set."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epochd.datasets.info import DatasetInfo, Task
from epochd.datasets.stored import StoredWriter


@dataclass(frozen=True, slots=True)
class Source:
    """A file on disk, and the name it came with, which its format may be told from and messages name."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Options:
    """How its owner wants a file to be read; None is inferred.

    ``target`` are the columns to predict, ``features`` those to predict from. ``image_size`` is height and width.
    """

    name: str
    target: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    task: Task | None = None
    header: bool | None = None
    image_size: tuple[int, int] | None = None
    format: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may unpack to. Readers refuse more with ``too_large_unpacked``, as they go, before it is there."""

    unpacked_bytes: int = 64 * 2**30
    pixels: int = 100_000_000
    """Of one image, before it is resized."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What was read, beside the arrays, which are with the writer.

    ``preview`` is JSON-ready and shows the first samples: ``{"columns": […], "rows": [[…], …]}``. ``notes`` are
    ``{"code", "message"}``: what was inferred, and what the owner should know.
    """

    info: DatasetInfo
    format: str
    preview: dict[str, Any]
    notes: list[dict[str, str]] = field(default_factory=list)


Reader = Callable[[Source, Options, Limits, StoredWriter], Contents]
"""Writes the parts of ``RawData`` and ``y``, and says what they are; it leaves ``StoredWriter.finish`` to the caller.

Raises ``InvalidDatasetError`` that names file, row or column and says what would be right.
"""
