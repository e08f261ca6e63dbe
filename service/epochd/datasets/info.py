"""What is known of a data set without reading its samples."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Task = Literal["classification", "regression"]
Kind = Literal["table", "image", "array", "text"]
ColumnType = Literal["number", "boolean", "date", "category"]

IMAGE_DIMENSIONS = 3


@dataclass(frozen=True, slots=True)
class Column:
    """A feature of a table.

    ``missing`` counts the samples that have no value. ``categories`` are all values that a category has, in the order
    of their codes 0, 1, …; None for any other type. ``has_time`` tells of a date that it is more than a day.
    """

    name: str
    type: ColumnType = "number"
    missing: int = 0
    categories: tuple[str, ...] | None = None
    has_time: bool = False


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What is known of a data set before it is read.

    ``shape`` is one sample's as it is stored: ``(features,)`` for a table, ``(channels, height, width)`` for images,
    ``()`` for a text. ``columns`` are a table's features in their order, as many as ``shape`` says. ``classes`` are
    the names of the classes in the order of their labels 0, 1, …, None for regression; ``targets`` is the number of
    regression targets, 0 for classification, and ``target_names`` what they, or the label, are called.
    ``class_counts`` has how many samples each class has, None where that is not known.
    """

    name: str
    task: Task
    samples: int
    shape: tuple[int, ...]
    classes: tuple[str, ...] | None
    targets: int
    description: str
    kind: Kind = "table"
    columns: tuple[Column, ...] = ()
    target_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] | None = None

    @property
    def outputs(self) -> int:
        """What a model puts out for one sample: one number a class, or a target."""
        return len(self.classes) if self.classes is not None else self.targets

    @property
    def is_image(self) -> bool:
        """Whether a sample is an image, so that a convolution makes sense."""
        return self.kind == "image"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured on each split, beside each other: ``loss`` and the task's own metric."""
        return ("loss", "accuracy" if self.task == "classification" else "r2")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values that ``from_dict`` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave, tuples having become lists on the way."""
        columns = tuple(
            Column(**{**column, "categories": _tuple(column["categories"])}) for column in values["columns"]
        )
        names = ("shape", "classes", "target_names", "class_counts")
        return cls(**{**values, **{name: _tuple(values[name]) for name in names}, "columns": columns})


def _tuple(values: list[Any] | None) -> Any:
    return None if values is None else tuple(values)
