"""Iterations in columns, as JSON spliced from the stored texts or as arrays."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from epochd.store.blocks import COLUMNS, cut, dump, epochs_of, load
from epochd.store.curve import Piece

FIELDS = ("epoch", *COLUMNS)
"""The columns that a reader may choose from; ``iteration`` is always there."""
EMPTY: dict[str, npt.NDArray[Any]] = {
    name: np.empty(0, np.float32 if name in COLUMNS else np.int64) for name in ("iteration", *FIELDS)
}
"""Each column without any value."""


def chosen(fields: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Give the names of the columns of an answer, in their order, and those among them that are stored."""
    names = ["iteration", *(name for name in FIELDS if fields is None or name in fields)]
    return names, [name for name in names if name in COLUMNS]


def spliced(found: Iterable[Piece], names: Sequence[str], stored: Sequence[str]) -> dict[str, bytes]:
    """Write pieces, which have the texts of the columns ``stored``, as a JSON array for each of ``names``."""
    parts: dict[str, list[str]] = {name: [] for name in names}
    for piece in found:
        numbers = np.arange(piece.first, piece.last + 1)
        parts["iteration"].append(_inside(numbers))
        if "epoch" in parts:
            parts["epoch"].append(_inside(epochs_of(numbers, piece.iterations_per_epoch)))
        for name, text in zip(stored, piece.texts, strict=True):
            parts[name].append(text[1:-1] if piece.whole else cut(text, piece.start, piece.stop))
    return {name: f"[{','.join(texts)}]".encode() for name, texts in parts.items()}


def _inside(numbers: npt.NDArray[np.int64]) -> str:
    return dump(numbers)[1:-1].decode()


def loaded(
    found: Iterable[Piece], names: Sequence[str], stored: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    """Read pieces as arrays of equal length, null as NaN."""
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [EMPTY[name]] for name in names}
    for piece in found:
        numbers = np.arange(piece.first, piece.last + 1, dtype=np.int64)
        parts["iteration"].append(numbers)
        if "epoch" in parts:
            parts["epoch"].append(epochs_of(numbers, piece.iterations_per_epoch))
        for name, text in zip(stored, piece.texts, strict=True):
            parts[name].append(load(text)[piece.start : piece.stop])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def answer(columns: Mapping[str, bytes], following: int | None) -> bytes:
    """Write columns that are JSON already as ``{"columns": {…}, "next": …}``."""
    body = b",".join(b'"%b":%b' % (name.encode(), text) for name, text in columns.items())
    return b'{"columns":{%b},"next":%b}' % (body, orjson.dumps(following))
