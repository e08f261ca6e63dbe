"""Whether samples are as they are described, before anything is fitted on them."""

import numpy as np

from epochd.datasets.info import DatasetInfo
from epochd.datasets.preprocessing.rows import Array, Rows, chunks, count, part_of, require_finite
from epochd.datasets.preprocessing.table import PARTS, columns_of, of_type
from epochd.datasets.raw import RawData
from epochd.errors import DataError


def check(raw: RawData, rows: Rows) -> None:
    """Raise ``DataError`` when shapes, numbers of samples, labels or targets do not fit ``raw.info``."""
    if count(rows, len(raw)) == 0:
        raise DataError(f"The training split of {raw.info.name} is empty; at least 1 sample is needed.")
    for name, part in raw.parts.items():
        _check_part(raw, name, part)
    if raw.info.task == "regression":
        _check_targets(raw, rows)
    else:
        _check_labels(raw.info, raw.y, rows)


def _check_part(raw: RawData, name: str, part: Array) -> None:
    if name == "text":  # bytes of all samples; the offsets say where each begins
        return
    samples = len(part) - (name == "offsets")
    if samples != len(raw):
        raise DataError(
            f"{raw.info.name} has {samples} samples, but {len(raw)} labels or targets; one each is needed."
        )
    expected = _shape(raw.info, name)
    if part.shape[1:] != expected:
        of = "" if name == "x" else f" among its {name}"
        raise DataError(
            f"A sample of {raw.info.name} has the shape {part.shape[1:]}{of}; {expected} was expected."
        )


def _shape(info: DatasetInfo, name: str) -> tuple[int, ...]:
    """One sample's in a part."""
    if name == "x":
        return info.shape
    return (len(of_type(columns_of(info), PARTS[name])),) if name in PARTS else ()


def _check_targets(raw: RawData, rows: Rows) -> None:
    for start, chunk in chunks(raw.y, rows):
        require_finite(chunk, part_of(rows, start, start + len(chunk)), "targets")


def _check_labels(info: DatasetInfo, y: Array, rows: Rows) -> None:
    bounds = np.array([(chunk.min(), chunk.max()) for _, chunk in chunks(y, rows)])
    lowest, highest = bounds.min(), bounds.max()
    if lowest < 0 or highest >= info.outputs:
        raise DataError(
            f"The labels of {info.name} run from {lowest} to {highest}; 0 to {info.outputs - 1} are known."
        )
