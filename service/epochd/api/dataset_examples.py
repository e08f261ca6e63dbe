"""The examples of data sets in the OpenAPI document, and its words about the body that brings one."""

from typing import Any, Final

from epochd.contract.datasets import Dataset, DatasetFields, DatasetReference

DATASET_ID: Final = "dataset_01k9v7f6zqk3m5t8w2x4y6a8bc"
_SUMMARY: Final[dict[str, Any]] = {
    "id": DATASET_ID,
    "name": "flowers",
    "built_in": False,
    "description": "",
    "kind": "table",
    "task": "classification",
    "samples": 4,
    "shape": [2],
    "targets": ["species"],
    "digest": "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945",
    "bytes": 64,
    "created_at": "2026-01-31T09:00:00.000Z",
}
DATASET: Final[dict[str, Any]] = _SUMMARY | {
    "columns": [
        {"name": "length", "type": "number", "missing": 0, "distinct": None, "values": None},
        {"name": "width", "type": "number", "missing": 1, "distinct": None, "values": None},
    ],
    "classes": [{"name": "setosa", "samples": 2}, {"name": "virginica", "samples": 2}],
    "preview": {
        "columns": ["length", "width", "species"],
        "rows": [[5.1, 3.5, "setosa"], [4.9, None, "setosa"]],
    },
    "notes": [{"code": "target_inferred", "message": "The target is 'species', the last column."}],
    "source": {
        "format": "csv",
        "file": "flowers.csv",
        "bytes": 93,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "url": None,
    },
}
LISTED: Final[dict[int, dict[str, Any]]] = {
    200: {"content": {"application/json": {"example": {"data": [_SUMMARY], "next": None}}}}
}
SHOWN: Final[dict[int, dict[str, Any]]] = {200: {"content": {"application/json": {"example": DATASET}}}}
_LOCATION: Final = {
    "Location": {
        "description": "The path of the data set.",
        "schema": {"type": "string"},
        "example": f"/v1/datasets/{DATASET_ID}",
    }
}
CREATED: Final[dict[int, dict[str, Any]]] = {
    201: {
        "description": "The data set, ready for jobs.",
        "headers": _LOCATION,
        "content": {"application/json": {"example": DATASET}},
    },
    200: {
        "model": Dataset,
        "description": "The data set that the same request with the same `Idempotency-Key` had created.",
        "headers": _LOCATION,
        "content": {"application/json": {"example": DATASET}},
    },
}


def _form() -> dict[str, Any]:
    schema = _inlined(DatasetFields)
    file = {
        "type": "string",
        "format": "binary",
        "description": "The file, before or after the other fields.",
    }
    size = {"type": "string", "description": "`64`, or height and width: `48x64`.", "examples": ["64"]}
    properties = {**schema["properties"], "file": file, "image_size": size}
    return {**schema, "properties": properties, "required": ["file"]}


def _inlined(model: type[DatasetFields]) -> dict[str, Any]:
    schema = model.model_json_schema()
    assert "$defs" not in schema
    return schema


REQUEST_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _form()},
        "application/json": {
            "schema": _inlined(DatasetReference),
            "example": {"url": "s3://bucket/flowers.csv", "name": "flowers", "target": ["species"]},
        },
    },
}
