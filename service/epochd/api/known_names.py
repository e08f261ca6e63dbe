"""Which parameters a request model knows at a place in it."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel


def allowed_names(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """List the names of the parameters at ``location``, which may hold the tags of unions, as Pydantic's do.

    >>> allowed_names(JobSpec, ["model", "linear"])
    ['name']
    """
    return sorted(
        {
            field.alias or name
            for one in _models_at(model, location)
            for name, field in one.model_fields.items()
        }
    )


def fixed_names(model: type[BaseModel], location: Sequence[str | int]) -> set[str]:
    """List the names of the parameters at ``location`` that exist, but cannot be changed by this request."""
    return {name for one in _models_at(model, location) for name in getattr(one, "FIXED", ())}


def _models_at(model: type[BaseModel], location: Sequence[str | int]) -> list[type[BaseModel]]:
    found = [model]
    for element in location:
        found = _descend(found, element)
    return found


def _descend(models: list[type[BaseModel]], element: str | int) -> list[type[BaseModel]]:
    fields = [one.model_fields[str(element)].annotation for one in models if str(element) in one.model_fields]
    if fields:
        return [inner for annotation in fields for inner in _models(annotation)]
    tagged = [one for one in models if element in _tags(one)]
    return tagged or models


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("name")
    return get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()
