"""From the labels or numbers of samples, as they come, to ``y``: classes are known only after the last sample."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from epochd.datasets.info import Task
from epochd.datasets.reading import Options
from epochd.datasets.stored import TARGETS, StoredWriter
from epochd.errors import InvalidDatasetError

MAX_CLASSES: Final = 10_000
MAX_INFERRED_CLASSES: Final = 100
"""Whole numbers with more different values than this are taken for regression, unless the task is given."""

_ROWS_AT_ONCE: Final = 1 << 16
_EXACT: Final = 2**53
_LONGEST_NUMBER: Final = 100
_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Target:
    """What ``y`` turned out to be; ``classes``, ``counts`` and ``targets`` are as in ``DatasetInfo``."""

    task: Task
    classes: tuple[str, ...] | None = None
    counts: tuple[int, ...] | None = None
    targets: int = 0
    notes: list[dict[str, str]] = field(default_factory=list)


class Targets:
    """Takes the labels of samples in their order, several at a time, and writes ``y`` at the end.

    Labels are either all words or all numbers; what came is kept in a file beside the data, not in memory.
    ``name`` is what the label is called, which messages name as their column.
    """

    def __init__(self, writer: StoredWriter, options: Options, name: str) -> None:
        self.rows = 0
        self._writer = writer
        self._options = options
        self._name = name
        self._spool = tempfile.TemporaryFile(dir=writer.folder)  # noqa: SIM115 - closed by finish or the end of self
        self._words: dict[str, int] = {}
        self._distinct: set[float] | None = set()
        self._whole = True
        self._width = 1

    def words(self, labels: Sequence[str]) -> None:
        """Take the next labels, each the name of a class."""
        if not labels:
            return
        if self._options.task == "regression":
            self._refuse(0, "non_numeric_target", f"is {_short(labels[0])}; regression needs a number")
        if self.rows and not self._words:
            self._refuse(0, "mixed_labels", f"is the word {_short(labels[0])}, those before were numbers")
        for index, label in enumerate(labels):
            if not label.strip():
                self._refuse(index, "missing_target", "is empty; every sample needs one")
            self._words.setdefault(label, len(self._words))
            if len(self._words) > MAX_CLASSES:
                raise self._too_many_classes()
        self._keep(np.array([self._words[label] for label in labels], np.float64))

    def numbers(self, values: npt.NDArray[Any]) -> None:
        """Take the next values, (rows,) or (rows, targets): real numbers of any type."""
        if not len(values):
            return
        if self._words:
            self._refuse(0, "mixed_labels", f"is the number {values.flat[0]}, those before were words")
        self._whole = self._whole and values.dtype.kind in "biu"
        exact = values.astype(np.float64)
        self._check(exact.reshape(len(values), -1))
        self._width = exact[0].size
        self._collect(exact)
        self._keep(exact)

    def finish(self) -> Target:
        """Write ``y`` and say what it is."""
        with self._spool:
            task, notes = self._task()
            if task == "regression":
                self._write_numbers()
                return Target(task, targets=self._width, notes=notes)
            values, classes = self._classes()
            counts = self._write_labels(values)
            return Target(task, classes, tuple(counts.tolist()), notes=notes)

    def _check(self, values: npt.NDArray[np.float64]) -> None:
        for wrong, code, text in (
            (np.isnan(values), "missing_target", "is not a number; every sample needs one"),
            (np.isinf(values), "infinite_target", "is infinite; every target must be finite"),
            (np.abs(values) > _LARGEST, "target_out_of_range", f"is beyond ±{_LARGEST:.3g}; scale it down"),
        ):
            if wrong.any():
                self._refuse(int(wrong.any(axis=1).argmax()), code, text)

    def _collect(self, values: npt.NDArray[np.float64]) -> None:
        if self._distinct is not None and self._width == 1:
            self._distinct.update(np.unique(values).tolist())
        if self._distinct is not None and (self._width > 1 or len(self._distinct) > MAX_CLASSES):
            self._distinct = None

    def _keep(self, values: npt.NDArray[np.float64]) -> None:
        self._spool.write(np.ascontiguousarray(values).data)
        self.rows += len(values)

    def _task(self) -> tuple[Task, list[dict[str, str]]]:
        if self._words:
            return "classification", []
        if self._options.task is not None:
            return self._options.task, []
        count = None if self._distinct is None else len(self._distinct)
        classes = self._whole and count is not None and count <= min(MAX_INFERRED_CLASSES, self.rows // 2)
        task: Task = "classification" if classes else "regression"
        other: Task = "regression" if classes else "classification"
        seen = f"whole numbers with {count} different values" if classes else "numbers"
        text = f"The targets are {seen}: taken for {task}. Send task={other} if they are not."
        return task, [{"code": "task_inferred", "message": text}]

    def _classes(self) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
        # Values as they were kept, in the order of the classes.
        if self._width > 1:
            message = f"{self._name!r} has {self._width} values a sample; classification needs one label."
            raise InvalidDatasetError(message, "target_shape", column=self._name)
        if self._words:
            names = sort_classes(list(self._words))
            values = np.array([self._words[name] for name in names], np.float64)
        elif self._distinct is None:
            raise self._too_many_classes()
        else:
            values = np.array(sorted(self._distinct))
            names = [_number_name(value) for value in values.tolist()]
        if len(names) < 2:  # noqa: PLR2004 - telling apart needs two
            raise self._one_class(names)
        return values, tuple(names)

    def _write_labels(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        order = np.argsort(values)
        counts = np.zeros(len(values), np.int64)
        for rows in self._kept():
            labels = order[np.searchsorted(values, rows[:, 0], sorter=order)].astype(np.int64)
            counts += np.bincount(labels, minlength=len(values))
            self._writer.append(TARGETS, labels)
        return counts

    def _write_numbers(self) -> None:
        low, high = np.inf, -np.inf
        for rows in self._kept():
            low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
            self._writer.append(TARGETS, rows.astype(np.float32))
        if np.all(low == high):
            message = f"All {self.rows} targets are equal; there is nothing to predict."
            raise InvalidDatasetError(message, "constant_target", column=self._name)

    def _kept(self) -> Iterator[npt.NDArray[np.float64]]:
        self._spool.seek(0)
        while content := self._spool.read(8 * self._width * _ROWS_AT_ONCE):
            yield np.frombuffer(content, np.float64).reshape(-1, self._width)

    def _refuse(self, index: int, code: str, text: str) -> None:
        row = self.rows + index + 1
        raise InvalidDatasetError(f"Row {row}: {self._name!r} {text}.", code, row=row, column=self._name)

    def _too_many_classes(self) -> InvalidDatasetError:
        message = (
            f"{self._name!r} has more than {MAX_CLASSES} different values; at most so many classes can be told apart. "
            "Send task=regression if they are quantities."
        )
        return InvalidDatasetError(message, "too_many_classes", column=self._name)

    def _one_class(self, names: Sequence[str]) -> InvalidDatasetError:
        message = (
            f"All {self.rows} samples are of the one class {_short(names[0])}; a data set needs two or more."
        )
        return InvalidDatasetError(message, "one_class", column=self._name)


def sort_classes(names: list[str]) -> list[str]:
    """Names in the order of their labels: whole numbers by value, so that 10 comes after 9, all else as text."""
    if all(name.isascii() and name.isdecimal() and len(name) < _LONGEST_NUMBER for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _number_name(value: float) -> str:
    return str(int(value)) if value.is_integer() and math.fabs(value) < _EXACT else repr(value)


def _short(label: str, limit: int = 40) -> str:
    return repr(label if len(label) <= limit else f"{label[:limit]}…")
