"""Data sets as the contract shows them."""

from typing import Any, Final

from epochd.contract.datasets import Dataset, DatasetSummary
from epochd.datasets import catalogue
from epochd.datasets.info import Column, DatasetInfo
from epochd.store.datasets import DatasetRow

VALUES_SHOWN: Final = 50


def summary(row: DatasetRow) -> DatasetSummary:
    """Show one in a list."""
    return DatasetSummary.model_validate(_summary(DatasetInfo.from_dict(row.info), row))


def built_in_summary(name: str) -> DatasetSummary:
    """Show a built-in one in a list."""
    return DatasetSummary.model_validate(_summary(catalogue.describe(name)))


def whole(row: DatasetRow) -> Dataset:
    """Show all that is known of one."""
    info = DatasetInfo.from_dict(row.info)
    told = {"preview": row.preview, "notes": row.notes, "source": row.source}
    return Dataset.model_validate({**_summary(info, row), **_contents(info), **told})


def built_in(name: str) -> Dataset:
    """Show all that is known of a built-in one."""
    info = catalogue.describe(name)
    told: dict[str, Any] = {"preview": None, "notes": [], "source": None}
    return Dataset.model_validate({**_summary(info), **_contents(info), **told})


def _summary(info: DatasetInfo, row: DatasetRow | None = None) -> dict[str, Any]:
    return {
        "id": row.id if row else info.name,
        "name": row.name if row else info.name,
        "built_in": row is None,
        "description": info.description,
        "kind": info.kind,
        "task": info.task,
        "samples": info.samples,
        "shape": list(info.shape),
        "targets": list(info.target_names),
        "digest": row and row.digest,
        "bytes": row and row.bytes,
        "created_at": row and row.created_at,
    }


def _contents(info: DatasetInfo) -> dict[str, Any]:
    counts = info.class_counts or [None] * len(info.classes or ())
    classes = [
        {"name": name, "samples": count} for name, count in zip(info.classes or (), counts, strict=True)
    ]
    return {
        "columns": [_column(column) for column in info.columns],
        "classes": None if info.classes is None else classes,
    }


def _column(column: Column) -> dict[str, Any]:
    values = column.categories
    return {
        "name": column.name,
        "type": column.type,
        "missing": column.missing,
        "distinct": None if values is None else len(values),
        "values": None if values is None else list(values[:VALUES_SHOWN]),
    }
