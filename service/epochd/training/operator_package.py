"""The operator's own models: packages with an entry point in the group ``epochd.models``. No torch here.

Such an entry point names a module, or an object, with

- ``build(data: DataShape, parameters) -> nn.Module``, which maps x (n, *data.input_shape) to (n, data.outputs);
- ``Parameters``, a Pydantic model, of which ``build`` gets an instance; or ``PARAMETERS``, a JSON schema of an object,
  of which it gets a dict with the defaults filled in; or neither;
- if it likes, ``TASKS``, ``KINDS`` and ``ENCODING``, as in ``describe``.
"""

import inspect
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

from epochd.errors import InfrastructureError, ModelError

GROUP: Final = "epochd.models"

_TASKS: Final = ("classification", "regression")
_KINDS: Final = ("table", "image", "array", "text")
_ENCODINGS: Final = ("one_hot", "codes")
_NO_PARAMETERS: Final = {"type": "object", "properties": {}, "additionalProperties": False}


def provided() -> dict[str, list[str]]:
    """Name the models that are installed, each with the packages that provide it: one, or nobody knows which to take.

    Nothing of theirs is imported.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for entry in metadata.entry_points(group=GROUP):
        found[entry.name].append(_package_of(entry)["name"])
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class OperatorPackage:
    """What an entry point names, imported; ``package`` is the ``name`` and ``version`` of its distribution."""

    name: str
    provider: Any
    package: dict[str, str]

    @property
    def encoding(self) -> str:
        """How the categories of a table reach the model: ``one_hot``, a column a category, or ``codes``."""
        return str(getattr(self.provider, "ENCODING", "one_hot"))

    def describe(self) -> dict[str, Any]:
        """What callers can know of the model, JSON-ready.

        ``tasks`` and ``kinds`` are the tasks and kinds of data that it takes (by default all tasks, and all data but
        text), ``parameters`` is a JSON schema. Raises ValueError, which says what is wrong with the package.
        """
        if not callable(getattr(self.provider, "build", None)):
            raise ValueError("it has no function build(data, parameters)")  # noqa: TRY004 - what a package lacks
        return {
            "name": self.name,
            "description": (inspect.getdoc(self.provider) or "").partition("\n\n")[0].replace("\n", " "),
            "kinds": self._several("KINDS", _KINDS, _KINDS[:-1]),
            "tasks": self._several("TASKS", _TASKS, _TASKS),
            "encoding": self._encoding(),
            "parameters": self._schema(),
            "package": self.package,
        }

    def parameters(self, given: Mapping[str, Any]) -> Any:
        """What ``build`` gets. Raises ModelError, which names each parameter that ``Parameters`` refuses."""
        model = getattr(self.provider, "Parameters", None)
        if model is None:
            return dict(given)
        try:
            return model.model_validate(dict(given))
        except ValueError as error:
            raise ModelError(_refusal(self.name, error), code="model_parameters_refused") from None

    def _several(self, name: str, known: tuple[str, ...], default: tuple[str, ...]) -> list[str]:
        values = getattr(self.provider, name, default)
        if isinstance(values, str) or not values or not set(values) <= set(known):
            raise ValueError(
                f"{name} has to be one or more of {', '.join(known)}, in a tuple; it is {values!r}"
            )
        return [value for value in known if value in values]

    def _encoding(self) -> str:
        if self.encoding not in _ENCODINGS:
            raise ValueError(f"ENCODING has to be one of {', '.join(_ENCODINGS)}; it is {self.encoding!r}")
        return self.encoding

    def _schema(self) -> dict[str, Any]:
        model = getattr(self.provider, "Parameters", None)
        if model is None:
            return dict(getattr(self.provider, "PARAMETERS", _NO_PARAMETERS))
        if not hasattr(model, "model_json_schema"):
            raise ValueError("Parameters has to be a Pydantic model; for a JSON schema write PARAMETERS")
        return _with_made_defaults(model, _closed(model.model_json_schema()))


def load(name: str) -> OperatorPackage:
    """Import the package of a model.

    Raises InfrastructureError ``model_not_installed``, also when two packages have a model of that name, and whatever
    the package raises.
    """
    entries = [entry for entry in metadata.entry_points(group=GROUP) if entry.name == name]
    if len(entries) != 1:
        message = f"This worker has {len(entries)} packages with a model {name!r}; it takes one."
        raise InfrastructureError(message, code="model_not_installed")
    return OperatorPackage(name, entries[0].load(), _package_of(entries[0]))


def _package_of(entry: metadata.EntryPoint) -> dict[str, str]:
    distribution = entry.dist
    if distribution is None:
        return {"name": entry.value, "version": "unknown"}
    return {"name": distribution.metadata["Name"], "version": distribution.version}


def _closed(schema: Any) -> Any:
    """Refuse unknown keys, as this service does everywhere, where the Pydantic model does not say otherwise."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: value if key in {"default", "examples"} else _closed(value) for key, value in schema.items()
    }
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def _with_made_defaults(model: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """Say in the schema what a ``default_factory`` makes, too: callers are shown every parameter of their job."""
    made = model.model_construct().model_dump(mode="json", by_alias=True, warnings=False)
    for name, described in schema.get("properties", {}).items():
        if name in made and name not in schema.get("required", ()):
            described.setdefault("default", made[name])
    return schema


def _refusal(name: str, error: ValueError) -> str:
    # A Pydantic error lists what is wrong with each parameter; its text would be many lines, and end in an address.
    listed = error.errors(include_url=False) if hasattr(error, "errors") else []
    wrong = [f"{'.'.join(['model', *map(str, one['loc'])])}: {one['msg']}" for one in listed]
    return f"The model {name!r} refuses its parameters: {'; '.join(wrong) or error}."
