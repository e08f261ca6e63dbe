"""The models that can be asked for, as callers see them."""

from typing import Any

from epochd.contract.base import Response, Timestamp
from epochd.contract.models import Encoding, Kind, Task


class ModelPackage(Response):
    """The Python package that an operator's model comes from."""

    name: str
    version: str


class ModelDescription(Response):
    """A model, and what `model` of a job's spec takes for it beside `name`."""

    name: str
    description: str
    kinds: list[Kind]
    """The kinds of data that it takes."""
    tasks: list[Task]
    encoding: Encoding
    """How the categories of a table reach it: a column a category, or a code a column for it to embed."""
    parameters: dict[str, Any]
    """The JSON schema (draft 2020-12) of an object with its parameters."""
    defaults: dict[str, Any]
    """What a job is resolved to that gives nothing but the required parameters."""
    package: ModelPackage | None
    """Where an operator's model comes from; `null` for one that comes with epochd."""
    published_at: Timestamp | None
    """When a worker that has an operator's model was last started; what is said here is as that worker had it."""
    workers: int
    """Workers alive that can train it; with 0 its jobs wait in the queue."""


class ModelList(Response):
    """All models: those that come with epochd, then the operator's, by name."""

    data: list[ModelDescription]
    next: None = None
    """There are few models: one page holds them all."""
