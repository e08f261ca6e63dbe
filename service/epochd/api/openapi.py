"""The OpenAPI document: complete, and committed as ``openapi.json``.

``python -m epochd.api.openapi`` writes it to standard output, or into the file named.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from epochd.api import models, workers
from epochd.api.health import NotReady
from epochd.contract.problems import Problem
from epochd.settings import Settings

VERSION: Final = "0.1.0"
DESCRIPTION: Final = """\
Another service posts a job, a worker trains it, every iteration and epoch is recorded, progress streams,
training stops when validation stops improving, and the best weights come out.

**Words.** An *epoch* is one full pass over the training samples. A *mini-batch* is one slice of the shuffled
training samples; *batch size* is how many samples it has. An *iteration* is one mini-batch processed and one
weight update, counted from 1 across epochs. 1000 samples in mini-batches of 100 are 10 mini-batches, 10
iterations, 1 epoch.

**Conventions.** JSON in UTF-8. Times are RFC 3339 in UTC. Unknown keys and unknown query parameters are
errors. A metric that has no value is `null`. Errors are `application/problem+json` (RFC 9457) with a stable
`code`; a 422 has an entry in `errors` for each parameter, which says what is wrong and what would be right.
Lists take `limit` and `after`; pass the `next` of a page as `after` to get the following one.
"""
TAGS: Final[list[dict[str, Any]]] = [
    {
        "name": "jobs",
        "description": "Trainings: queue, plan, watch, amend, pause, cancel, retry and delete them.",
    },
    {"name": "datasets", "description": "What is trained on: bring data sets, look at them, remove them."},
    {"name": "batch size", "description": "Which batch size to take, measured on the device."},
    {"name": "metrics", "description": "What was measured at each iteration and epoch."},
    {
        "name": "events",
        "description": "What happened to a job, in one durable, numbered sequence; polled or streamed.",
    },
    models.TAG,
    workers.TAG,
    {"name": "artifacts", "description": "The weights, and all else that a job left."},
    {"name": "monitoring", "description": "The whole service in numbers."},
    {"name": "health", "description": "For load balancers and orchestrators. Open to all."},
]
REFERENCE: Final = "#/components/schemas/{model}"


def install(app: FastAPI) -> None:
    """Make ``app`` publish the document below instead of FastAPI's own."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to replace it


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version=app.openapi_version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        license_info=app.license_info,
    )
    _, problems = models_json_schema(
        [(Problem, "serialization"), (NotReady, "serialization")], ref_template=REFERENCE
    )
    schemas = document["components"]["schemas"]
    # FastAPI's own 422 is never sent.
    unused = {"HTTPValidationError", "ValidationError"}
    kept = {name: schema for name, schema in schemas.items() if name not in unused}
    document["components"]["schemas"] = dict(sorted((kept | problems["$defs"]).items()))
    for schema in document["components"]["schemas"].values():
        for field in schema.get("properties", {}).values():
            _tell_default_in_words(field)
            _name_constants_as_choices(field)
    return document


def _tell_default_in_words(field: dict[str, Any]) -> None:
    """Move a default that is an object into the description.

    Generators of clients know defaults of single values alone, and leave out whatever has another.
    """
    if isinstance(field.get("default"), dict):
        told = f"By default `{json.dumps(field.pop('default'))}`."
        field["description"] = f"{field['description']}\n{told}" if "description" in field else told


def _name_constants_as_choices(field: dict[str, Any]) -> None:
    """Write a constant that is one of several ways to give a value, such as `auto`, as a choice of one.

    Generated clients insist on a constant, and would take nothing else for such a field.
    """
    for option in [*field.get("anyOf", []), *field.get("oneOf", [])]:
        if "const" in option:
            option["enum"] = [option.pop("const")]
        _name_constants_as_choices(option)


def rendered() -> str:
    """The document as it is committed."""
    from epochd.api.app import create_app  # noqa: PLC0415 - app imports this module

    document = create_app(Settings(data_dir=Path())).openapi()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> None:
    """Write the document to the file named, or to standard output."""
    if arguments:
        Path(arguments[0]).write_text(rendered())
    else:
        sys.stdout.write(rendered())


if __name__ == "__main__":
    main(sys.argv[1:])
