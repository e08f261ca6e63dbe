"""Lists the models that a spec may ask for: those that come with epochd, and the operator's."""

import inspect
from typing import Any

from epochd.contract.model_list import ModelDescription
from epochd.contract.models import BUILTIN_MODELS, BuiltinModel
from epochd.jobs import parameter_schema
from epochd.store import models, workers
from epochd.store.database import Transaction
from epochd.store.models import ModelRow
from epochd.store.workers import WorkerRow


def offered(tx: Transaction) -> list[ModelDescription]:
    """Describe all models, the operator's last."""
    alive = workers.alive(tx)
    built_in = [_built_in(name, model, len(alive)) for name, model in BUILTIN_MODELS.items()]
    return [*built_in, *(_operators(row, alive) for row in models.every(tx))]


def _built_in(name: str, model: type[BuiltinModel], workers_alive: int) -> ModelDescription:
    schema = _parameters(model)
    return ModelDescription(
        name=name,
        description=inspect.getdoc(model) or "",
        kinds=list(model.KINDS),
        tasks=list(model.TASKS),
        encoding=model.ENCODING,
        parameters=schema,
        defaults=parameter_schema.filled(schema, {}),
        package=None,
        published_at=None,
        workers=workers_alive,
    )


def _parameters(model: type[BuiltinModel]) -> dict[str, Any]:
    """Give the JSON schema of all but the name, in the form in which packages publish theirs."""
    schema = model.model_json_schema()
    left_out = {"name", "title", "description"}
    properties = {name: described for name, described in schema["properties"].items() if name != "name"}
    required = [name for name in schema["required"] if name != "name"]
    kept = {key: value for key, value in schema.items() if key not in left_out}
    return {**kept, "properties": properties, "required": required}


def _operators(row: ModelRow, alive: list[WorkerRow]) -> ModelDescription:
    return ModelDescription(
        **row.description,
        defaults=parameter_schema.filled(row.description["parameters"], {}),
        published_at=row.published_at,
        workers=sum(row.name in (one.models or ()) for one in alive),
    )
