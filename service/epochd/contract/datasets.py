"""Data sets on the wire: how to bring one, and what is known of it."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from epochd.contract.base import Request, Response, Timestamp
from epochd.contract.models import Kind, Task

DATASET_NAME = r"^\w[\w .+()\-]{0,199}$"
Name = Annotated[str, StringConstraints(pattern=DATASET_NAME)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
ColumnType = Literal["number", "boolean", "date", "category"]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Format = Literal["csv", "parquet", "arrow", "npz", "safetensors", "images", "jsonl"]


class DatasetFields(Request):
    """How a data set is to be read, beside the file; what is left out is inferred."""

    name: Name | None = None
    """What jobs call it; no two have the same. By default the file's name without its ending. Letters, digits, spaces
    and `. _ - + ( )`."""
    target: Annotated[list[ColumnName], Field(min_length=1, max_length=10_000)] | None = None
    """The columns to predict; by default one called `target`, `label`, `class` or `y`, else the last."""
    features: Annotated[list[ColumnName], Field(min_length=1, max_length=65_536)] | None = None
    """The columns to predict from; by default all others."""
    task: Task | None = None
    """By default what the target looks like."""
    header: bool | None = None
    """Whether the first line of a CSV names the columns."""
    image_size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] | None = None
    """Height and width that images are resized to."""
    format: Format | None = None
    """By default what the file's first bytes say."""


class DatasetReference(DatasetFields):
    """A data set that is fetched from where the operator allows it."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    """`s3://…`, `https://…`, `file://…` or `hf://…`, below one of the prefixes in `EPOCHD_DATASET_SOURCES`."""


class DatasetColumn(Response):
    """A feature of a table."""

    name: str
    type: ColumnType
    missing: int
    """Samples without a value."""
    distinct: int | None
    """How many values a category has."""
    values: list[str] | None
    """The first of them, at most 50."""


class DatasetClass(Response):
    """A class of a classification."""

    name: str
    samples: int | None
    """Null where it is not known."""


class DatasetNote(Response):
    """What was inferred, or what the owner should know."""

    code: str
    message: str


class DatasetSource(Response):
    """What came: a file that was sent or fetched."""

    format: str
    file: str
    bytes: int
    sha256: str | None = None
    """Of a file that was sent."""
    url: str | None = None


class DatasetSummary(Response):
    """A data set in a list."""

    id: str
    """What jobs show as their data set; a built-in one's name."""
    name: str
    built_in: bool
    description: str
    kind: Kind
    task: Task
    samples: int
    shape: list[int]
    """Of one sample, as it is stored: features of a table; channels, height and width of an image."""
    targets: list[str]
    """The names of what is predicted."""
    digest: str | None
    """SHA-256 over the arrays; null for built-in ones, whose jobs have it in their receipt."""
    bytes: int | None
    """What it takes on the disk."""
    created_at: Timestamp | None


class Dataset(DatasetSummary):
    """All that is known of a data set."""

    columns: list[DatasetColumn]
    """The features of a table."""
    classes: list[DatasetClass] | None
    """In the order of the model's outputs; null for regression."""
    preview: dict[str, Any] | None
    """The first samples: `{"columns": […], "rows": [[…], …]}`."""
    notes: list[DatasetNote]
    source: DatasetSource | None


class DatasetList(Response):
    """A page of data sets, newest first, the built-in ones last."""

    data: list[DatasetSummary]
    next: str | None
