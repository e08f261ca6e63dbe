"""Whether one data set can stand in for another: to validate on it, or to predict."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from epochd.datasets.info import Column, DatasetInfo
from epochd.errors import DataError

Labels = npt.NDArray[np.int64]


def mismatches(trained: DatasetInfo, other: DatasetInfo) -> list[str]:
    """Why ``other`` cannot be read as ``trained`` is, one sentence each; empty when it can.

    It has the same kind, task and shapes, all columns of ``trained`` (by name; others are ignored), no further class,
    and as many targets; those of a table, if there are several, by the same names in the same order. Its categories may
    have other values: those that training has not seen are encoded as such.
    """
    if (trained.kind, trained.task) != (other.kind, other.task):
        return [
            f"{other.name} is {_article(other)}; {trained.name} is {_article(trained)}, and both must be the same."
        ]
    return [*_of_samples(trained, other), *_of_targets(trained, other)]


def label_lookup(info: DatasetInfo, classes: Sequence[str] | None) -> Labels | None:
    """The label, among ``classes``, of each class of ``info``; None when they are the same.

    Raises ``DataError`` for a class that is not among ``classes``.
    """
    if info.classes is None or classes is None or info.classes == tuple(classes):
        return None
    labels = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in info.classes if name not in labels]
    if unknown:
        raise DataError(_unknown_class(info.name, unknown[0], classes))
    return np.array([labels[name] for name in info.classes], dtype=np.int64)


def _of_samples(trained: DatasetInfo, other: DatasetInfo) -> Iterator[str]:
    if trained.columns and other.columns:
        yield from _of_columns(trained, other)
    elif trained.shape != other.shape:
        yield f"A sample of {other.name} has the shape {other.shape}; {trained.name} has {trained.shape}."


def _of_columns(trained: DatasetInfo, other: DatasetInfo) -> Iterator[str]:
    types = {column.name: _role(column) for column in other.columns}
    for column in trained.columns:
        found = types.get(column.name)
        if found is None:
            yield f"{other.name} has no column {column.name!r}, which {trained.name} has."
        elif found != _role(column):
            yield f"The column {column.name!r} is a {found} in {other.name} and a {_role(column)} in {trained.name}."


def _of_targets(trained: DatasetInfo, other: DatasetInfo) -> Iterator[str]:
    if trained.classes is not None:
        known = set(trained.classes)
        unknown = [name for name in other.classes or () if name not in known]
        if unknown:
            yield _unknown_class(other.name, unknown[0], trained.classes)
    elif trained.targets != other.targets:
        yield f"{other.name} has {other.targets} targets; {trained.name} has {trained.targets}."
    elif (
        trained.targets > 1
        and trained.columns
        and other.columns
        and trained.target_names != other.target_names
    ):
        yield (
            f"The targets of {other.name} are {', '.join(other.target_names)}; those of {trained.name} are "
            f"{', '.join(trained.target_names)}, and both must be the same in the same order."
        )


def _role(column: Column) -> str:
    """Booleans are numbers, 0 and 1."""
    return "number" if column.type == "boolean" else column.type


def _unknown_class(name: str, unknown: str, classes: Sequence[str]) -> str:
    known = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")  # noqa: PLR2004 - enough to recognise them
    return f"{name} has the class {unknown!r}, which was not trained on; the classes are {known}."


def _article(info: DatasetInfo) -> str:
    return f"{info.kind} data for {info.task}"
