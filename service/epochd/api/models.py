"""The models that can be trained."""

from typing import Any, Final

from fastapi import APIRouter

from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep
from epochd.api.requests import Nothing
from epochd.api.responses import describe
from epochd.contract.model_list import ModelList
from epochd.jobs.offered_models import offered

router = APIRouter(route_class=GuardedRoute, tags=["models"])

TAG: Final = {
    "name": "models",
    "description": "What can be trained: the models that come with epochd, and the operator's own.",
}
_EXAMPLE: Final[dict[str, Any]] = {
    "data": [
        {
            "name": "acme_mixer",
            "description": "Mixes features and hidden units in turn.",
            "kinds": ["table"],
            "tasks": ["classification", "regression"],
            "encoding": "one_hot",
            "parameters": {
                "type": "object",
                "properties": {
                    "width": {"type": "integer", "minimum": 1, "maximum": 4096, "default": 64},
                    "dropout": {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "default": 0.1},
                },
                "additionalProperties": False,
            },
            "defaults": {"width": 64, "dropout": 0.1},
            "package": {"name": "acme-models", "version": "1.2.0"},
            "published_at": "2026-01-31T09:00:00.000Z",
            "workers": 2,
        }
    ],
    "next": None,
}


@router.get(
    "/models",
    operation_id="list_models",
    summary="List the models that can be trained",
    responses=describe({200: {"content": {"application/json": {"example": _EXAMPLE}}}}, 401, 422, 503),
)
def list_models(db: DatabaseDep, _query: Nothing) -> ModelList:
    """Each with the JSON schema of its parameters, their defaults, and the tasks and data that it fits."""
    with db.read() as tx:
        return ModelList(data=offered(tx))
