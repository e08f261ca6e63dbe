"""What was fitted on the training split, and reading any samples through it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from epochd.datasets.encoding import Encoded
from epochd.datasets.info import IMAGE_DIMENSIONS, Kind
from epochd.datasets.preprocessing.checks import check
from epochd.datasets.preprocessing.dense import DenseSteps
from epochd.datasets.preprocessing.matching import label_lookup
from epochd.datasets.preprocessing.records import table_inputs, text_inputs
from epochd.datasets.preprocessing.rows import (
    ALL,
    VALUES_IN_CACHE,
    Array,
    Rows,
    count,
    require_finite,
    spans,
    take,
)
from epochd.datasets.preprocessing.standardisation import Standardisation
from epochd.datasets.preprocessing.steps import Inputs, Steps
from epochd.datasets.preprocessing.table import TableSteps
from epochd.datasets.preprocessing.texts import TextSteps
from epochd.datasets.raw import RawData
from epochd.errors import DataError

Float32Array = npt.NDArray[np.float32]

FORMAT_VERSION: Final = 2


@dataclass(frozen=True)
class Preprocessing:
    """What turns measured samples into what the model sees, and its outputs into what they mean.

    ``target`` standardises the targets of a regression; None for classification. ``classes`` is None for regression.
    """

    kind: Kind
    input_shape: tuple[int, ...]
    steps: Steps
    classes: tuple[str, ...] | None
    target: Standardisation | None

    @classmethod
    def fit(cls, raw: RawData, rows: Rows, encoded: Encoded) -> Self:
        """Measure the training split, which is ``rows`` of ``raw``, chunk by chunk.

        Raises ``DataError`` when shapes or labels do not fit ``raw.info``, or a value is infinite, or NaN where no
        value is missing.
        """
        check(raw, rows)
        target = Standardisation.fit(raw.y, rows) if raw.info.task == "regression" else None
        steps = _fitted_steps(raw, rows, encoded)
        return cls(raw.info.kind, encoded.input_shape, steps, raw.info.classes, target)

    @property
    def mean(self) -> Float32Array | None:
        """What is subtracted from one sample's numbers or pixels; None for texts."""
        return None if isinstance(self.steps, TextSteps) else _standardisation(self.steps).mean

    @property
    def scale(self) -> Float32Array | None:
        """What one sample's numbers or pixels are then divided by; None for texts."""
        return None if isinstance(self.steps, TextSteps) else _standardisation(self.steps).scale

    @property
    def target_mean(self) -> Float32Array | None:
        """(targets,); None for classification."""
        return None if self.target is None else self.target.mean

    @property
    def target_scale(self) -> Float32Array | None:
        """(targets,); None for classification."""
        return None if self.target is None else self.target.scale

    def reading(self, raw: RawData) -> "Reading":
        """Match a data set to the one that was fitted on: columns, categories and classes by their names.

        Raises ``DataError`` when something that was fitted on is not there.
        """
        return Reading(self, raw)

    def inputs(self, raw: RawData, rows: Rows = ALL) -> Inputs:
        """Samples as they were measured, matched to what training saw: what an exported model takes.

        A table: ``numbers`` float32 (n, k), ``dates`` int64 (n, d) in microseconds, ``codes`` int32 (n, c), positions
        as ``CategoryColumn`` counts them; a part without columns is left out. Images and arrays: ``x``. Texts:
        ``tokens`` int32 (n, sequence_length).
        """
        return self.reading(raw).inputs(rows)

    def apply(self, raw: RawData, rows: Rows = ALL) -> Array:
        """What the model sees of ``rows``: (n, *input_shape), float32, or int32 for texts; a new array.

        Raises ``DataError`` when a value is infinite, or NaN in an image or array.
        """
        return self.reading(raw).apply(rows)

    def apply_records(self, records: Sequence[Any]) -> Array:
        """What the model sees of samples that are not in a data set: (n, *input_shape).

        A table's are mappings from column to value: numbers, booleans, strings, dates (ISO 8601 or ``datetime``), None
        where one is missing. Texts are strings; images and arrays are arrays of one shape. Raises ``DataError`` that
        names row and column.
        """
        if isinstance(self.steps, TableSteps):
            inputs = table_inputs(self.steps, records)
        elif isinstance(self.steps, TextSteps):
            inputs = text_inputs(self.steps, records)
        else:
            inputs = {"x": np.asarray(records).reshape(len(records), *self.input_shape)}
        x = np.empty((len(records), *self.input_shape), self.steps.dtype)
        self.steps.encode(inputs, x)
        require_finite(x, ALL, "samples")
        return x

    def targets(self, y: Array) -> Array:
        """Labels as they are; the targets of a regression standardised. Raises ``DataError`` for one not finite."""
        if self.target is None:
            return y
        require_finite(y, ALL, "targets")
        scaled = np.empty(y.shape, np.float32)
        self.target.apply(y, scaled)
        return scaled

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, exact.

        For images, arrays and tables of numbers alone a reader computes ``(x - mean) / scale`` in float32. For
        classification output i is the score of ``classes[i]``, for regression the prediction is
        ``output * target_scale + target_mean``.
        """
        target = self.target.as_dict() if self.target is not None else {"mean": None, "scale": None}
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "input_shape": list(self.input_shape),
            **self.steps.as_dict(),
            "classes": None if self.classes is None else list(self.classes),
            "target_mean": target["mean"],
            "target_scale": target["scale"],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave, or what versions before 2 did."""
        values = values if "kind" in values else _of_version_1(values)
        steps: dict[Kind, type[TableSteps | TextSteps | DenseSteps]] = {
            "table": TableSteps,
            "text": TextSteps,
        }
        target = None
        if values["target_mean"] is not None:
            target = Standardisation.from_dict(
                {"mean": values["target_mean"], "scale": values["target_scale"]}
            )
        return cls(
            values["kind"],
            tuple(values["input_shape"]),
            steps.get(values["kind"], DenseSteps).from_dict(values),
            None if values["classes"] is None else tuple(values["classes"]),
            target,
        )


class Reading:
    """One data set read through what was fitted. Stateless, so that several threads can share it."""

    def __init__(self, preprocessing: Preprocessing, raw: RawData) -> None:
        if raw.info.kind != preprocessing.kind:
            raise DataError(
                f"{raw.info.name} has the kind {raw.info.kind}; {preprocessing.kind} was trained on."
            )
        self._preprocessing = preprocessing
        self._raw = raw
        self._labels = label_lookup(raw.info, preprocessing.classes)
        self.inputs = preprocessing.steps.reading(raw)
        """As ``Preprocessing.inputs``."""
        self.shape = preprocessing.input_shape
        self.dtype = preprocessing.steps.dtype

    def apply(self, rows: Rows = ALL) -> Array:
        """As ``Preprocessing.apply``. The bits of a row do not depend on which others are read with it."""
        steps = self._preprocessing.steps
        x = np.empty((count(rows, len(self._raw)), *self.shape), self.dtype)
        for start, span in spans(rows, len(self._raw), prod(self.shape), VALUES_IN_CACHE):
            out = x[start : start + count(span, len(self._raw))]
            steps.encode(self.inputs(span), out)
            require_finite(out, span, "samples")
        return x

    def targets(self, rows: Rows = ALL) -> Array:
        """As ``Preprocessing.targets``; labels are those of the classes that were trained on."""
        y = take(self._raw.y, rows)
        return self._preprocessing.targets(y if self._labels is None else self._labels[y])


def _fitted_steps(raw: RawData, rows: Rows, encoded: Encoded) -> Steps:
    if raw.info.kind == "table":
        return TableSteps.fit(raw, rows, "codes" if encoded.categories else "one_hot")
    if raw.info.kind == "text":
        return TextSteps.fit(raw, rows, encoded)
    return DenseSteps.fit(raw, rows)


def _standardisation(steps: Steps) -> Standardisation:
    assert isinstance(steps, TableSteps | DenseSteps), "texts are not standardised"
    return steps.standardisation


def _of_version_1(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Complete what was stored before there were categories and dates: a table of numbers, or an image."""
    shape = values.get("input_shape")
    if len(np.shape(values["mean"])) == IMAGE_DIMENSIONS:
        if shape is None:
            raise DataError("Preprocessing of images from version 1 needs input_shape, which model.json has.")
        return {**values, "kind": "image"}
    numbers = [{"name": f"feature_{place}"} for place in range(len(values["mean"]))]
    table = {"kind": "table", "encoding": "one_hot", "numbers": numbers, "dates": [], "categories": []}
    return {**values, **table, "input_shape": shape or [len(numbers)]}
