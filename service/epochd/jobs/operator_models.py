"""The models of the operator's that a spec may ask for, as workers have published them; torch is not needed here."""

import difflib
from typing import Any, Final

from epochd.contract.job import Advice
from epochd.contract.models import BUILTIN_MODELS, Model, OperatorModel
from epochd.contract.spec import JobSpec
from epochd.datasets.info import DatasetInfo
from epochd.errors import ParamError
from epochd.jobs import parameter_schema
from epochd.jobs.known import Known

_LISTED: Final = 50


def filled(model: Model | None, known: Known) -> Model | None:
    """Fill in the defaults of an operator's model; any other, and one that nobody knows, stays as it is."""
    description = _description(model, known)
    if not isinstance(model, OperatorModel) or description is None:
        return model
    return OperatorModel(
        name=model.name, **parameter_schema.filled(description["parameters"], model.parameters)
    )


def contradictions(spec: JobSpec, info: DatasetInfo, known: Known) -> list[ParamError]:
    """What is wrong with the operator's model of a filled-in spec: unknown, its parameters, or not for this data."""
    model = spec.model
    if not isinstance(model, OperatorModel):
        return []
    description = _description(model, known)
    if description is None:
        return [_unknown(model.name, known)]
    return [
        *parameter_schema.problems(description["parameters"], model.parameters),
        *_unfitting(description, info),
    ]


def requirement(spec: JobSpec) -> str | None:
    """What a worker must have to train the job: the name of the operator's model, None for any other."""
    return spec.model.name if isinstance(spec.model, OperatorModel) else None


def advice_of(spec: JobSpec, known: Known) -> list[Advice]:
    """Say when nobody who lives could train the job now: it will wait."""
    name = requirement(spec)
    if name is None or known.is_offered(name):
        return []
    message = (
        f"No worker that is alive has the model {name!r}: the job waits in the queue until one has it. Install its "
        "package beside a worker, and start that again."
    )
    return [Advice(code="model_not_offered", param="model.name", message=message)]


def _description(model: Model | None, known: Known) -> dict[str, Any] | None:
    return known.model(model.name) if isinstance(model, OperatorModel) else None


def _unknown(name: str, known: Known) -> ParamError:
    names = [*BUILTIN_MODELS, *known.models()]
    close = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(repr(one) for one in close)}?" if close else ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    message = (
        f"There is no model {name!r}.{hint} There are {', '.join(names[:_LISTED])}{more}; a package of your own is "
        "known once a worker that has it was started."
    )
    return ParamError("model.name", message, "unknown_model")


def _unfitting(description: dict[str, Any], info: DatasetInfo) -> list[ParamError]:
    name = description["name"]
    errors = []
    if info.task not in description["tasks"]:
        made_for = " and ".join(description["tasks"])
        message = f"{name} is made for {made_for}, but the task of {info.name} is {info.task}."
        errors.append(ParamError("model.name", message, "model_does_not_fit_task"))
    if info.kind not in description["kinds"]:
        message = (
            f"{name} takes data of the kind {' or '.join(description['kinds'])}, but {info.name} is of the kind "
            f"{info.kind}."
        )
        errors.append(ParamError("model.name", message, "model_does_not_fit_data"))
    return errors
