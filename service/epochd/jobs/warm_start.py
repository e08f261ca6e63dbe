"""Whether a job can begin with the weights of another: everything is compared before it is queued. No torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from epochd.contract.models import BuiltinModel, Model, OperatorModel
from epochd.contract.spec import JobSpec, StartFrom
from epochd.datasets.encoding import SEQUENCE_LENGTH, VOCABULARY_SIZE, encoded
from epochd.datasets.info import DatasetInfo
from epochd.errors import ConflictError, InvalidRequestError, NotFoundError, ParamError
from epochd.jobs.known import Known
from epochd.jobs.lifecycle import DONE, is_done
from epochd.jobs.source_job import DESCRIPTION, SourceJob, find_source
from epochd.store import jobs
from epochd.store.database import Transaction
from epochd.store.jobs import JobRow
from epochd.training.architecture import layers
from epochd.training.config import DataShape, ModelConfig

_PARTS: Final = {"numbers": "number", "dates": "date", "categories": "category"}
_SHOWN: Final = 4


def contradictions(spec: JobSpec, info: DatasetInfo, known: Known) -> list[ParamError]:
    """Why a filled-in spec cannot begin with the weights that it names; empty when it can, or names none."""
    start = spec.start_from
    if start is None:
        return []
    source = known.source_job(start.job)
    problem = _unusable(start, source)
    if problem is not None or source is None or source.folder is None:
        return [problem] if problem is not None else []
    try:
        described = json.loads((source.folder / DESCRIPTION).read_bytes())
    except (OSError, ValueError):
        message = f"The weights of {start.job} are gone from the data directory: name another job."
        return [ParamError("start_from.job", message, "start_from_without_weights")]
    if _lost_last_weights(start, source, described):
        message = f"{start.job} was trained by an older epochd, which kept only its best weights: send checkpoint best."
        return [ParamError("start_from.checkpoint", message, "start_from_without_weights")]
    return [
        ParamError("start_from.job", one, "start_from_mismatch")
        for one in _mismatches(spec, info, described, known)
    ]


def hold(tx: Transaction, spec: JobSpec) -> None:
    """Have the job that the spec starts from stay until the caller's transaction has queued the new one.

    Raises ``InvalidRequestError`` when it is gone, or is being trained again.
    """
    if spec.start_from is None:
        return
    try:
        row: JobRow | None = jobs.get(tx, spec.start_from.job, lock=True)
    except NotFoundError:
        row = None
    if row is None or not is_done(row.status):
        source = None if row is None else SourceJob(row, None)
        problem = _unusable(spec.start_from, source)
        assert problem is not None, "it is gone, or not done"
        raise InvalidRequestError.of(problem)


def hold_for_retry(tx: Transaction, row: JobRow) -> None:
    """Have the job that this one starts from stay, while this one, which was done, is queued again.

    Raises ``ConflictError`` (``start_from_gone``) when it is deleted, being trained again, or without its weights.
    """
    if row.starts_from is None:
        return
    with suppress(NotFoundError):
        jobs.get(tx, row.starts_from, lock=True)
    source = find_source(tx, row.starts_from)
    if source is None or source.folder is None:
        why = "was deleted" if source is None else f"is {source.row.status} and has no weights"
        message = (
            f"{row.id} starts from {row.starts_from}, which {why}: send a new job that starts from another."
        )
        raise ConflictError(message, code="start_from_gone")


def require_unneeded(tx: Transaction, job_id: str) -> None:
    """Raise ``ConflictError`` (``job_in_use``) while a job that is not done starts from this one.

    The caller holds the job's row, and is about to take away its weights.
    """
    waiting = jobs.starting_from(tx, job_id, tuple(DONE))
    if waiting:
        message = f"{waiting[0]} starts from {job_id} and is not done; wait until it is, or cancel it."
        raise ConflictError(message, code="job_in_use")


def _unusable(start: StartFrom, source: SourceJob | None) -> ParamError | None:
    if source is None:
        message = f"There is no job {start.job!r}; GET /v1/jobs lists them."
        return ParamError("start_from.job", message, "unknown_job")
    status = source.row.status
    if not is_done(status):
        message = f"{start.job} is {status}: its weights can be had once it is done."
        return ParamError("start_from.job", message, "start_from_not_done")
    if source.folder is None:
        message = f"{start.job} is {status} and kept no weights: name another job, or leave start_from out."
        return ParamError("start_from.job", message, "start_from_without_weights")
    if start.checkpoint == "last" and status == "failed":
        message = f"{start.job} failed, and only its best weights from before are kept: send checkpoint best."
        return ParamError("start_from.checkpoint", message, "start_from_without_weights")
    return None


def _lost_last_weights(start: StartFrom, source: SourceJob, described: Mapping[str, Any]) -> bool:
    """Whether the job is from before the last weights were kept beside better ones, and had better ones."""
    is_old = "kind" not in described["preprocessing"]
    return start.checkpoint == "last" and is_old and described["selection"]["epoch"] < source.row.epoch


def _mismatches(
    spec: JobSpec, info: DatasetInfo, described: Mapping[str, Any], known: Known
) -> Iterator[str]:
    """Yield what differs between the trained model and the one of the spec, one sentence each."""
    assert spec.start_from is not None, "the caller looked"
    job, preprocessing = spec.start_from.job, described["preprocessing"]
    if "kind" not in preprocessing and info.kind == "table":
        yield f"{job} was trained by an older epochd, which kept no names of columns: train it again first."
        return
    kind = preprocessing.get("kind", info.kind)
    if (described["task"], kind) != (info.task, info.kind):
        yield (
            f"{job} was trained on {kind} data for {described['task']}; {info.name} is {info.kind} data for "
            f"{info.task}."
        )
        return
    differing = [*_columns(job, preprocessing, info), *_classes(job, preprocessing, info)]
    yield from differing or _layers(job, described["architecture"], _described(spec.model, info, known))


def _columns(job: str, preprocessing: Mapping[str, Any], info: DatasetInfo) -> Iterator[str]:
    if info.kind != "table" or not info.columns:
        return
    there = {one["name"]: type_ for part, type_ in _PARTS.items() for one in preprocessing[part]}
    here = {one.name: "number" if one.type == "boolean" else one.type for one in info.columns}
    for name in [*there, *(name for name in here if name not in there)]:
        if there.get(name) != here.get(name):
            yield (
                f"The column {name!r} {_kind(there.get(name))} in the data of {job}, and {_kind(here.get(name))} in "
                f"{info.name}."
            )
            return


def _kind(type_: str | None) -> str:
    return "does not exist" if type_ is None else f"is a {type_}"


def _classes(job: str, preprocessing: Mapping[str, Any], info: DatasetInfo) -> Iterator[str]:
    there = preprocessing["classes"]
    here = None if info.classes is None else list(info.classes)
    if there is not None and here is not None and there != here:
        yield f"{job} tells the classes {_shown(there)} apart; {info.name} has {_shown(here)}."


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _described(model: Model | None, info: DatasetInfo, known: Known) -> list[dict[str, Any]]:
    """Describe the layers of the new job's model, as ``model.json`` does."""
    assert model is not None, "the spec is resolved"
    parameters = model.model_dump()
    shape = encoded(
        info,
        _encoding(model, known),
        vocabulary_size=_size(parameters.get("vocabulary_size"), VOCABULARY_SIZE),
        sequence_length=_size(parameters.get("sequence_length"), SEQUENCE_LENGTH),
    )
    data = DataShape(info.kind, shape.input_shape, info.outputs, shape.categories, shape.vocabulary)
    try:
        return layers(ModelConfig(parameters.pop("name"), data, parameters))
    except ValueError:  # said of the model already, by others
        return []


def _encoding(model: Model, known: Known) -> Any:
    if isinstance(model, BuiltinModel):
        return model.ENCODING
    assert isinstance(model, OperatorModel), "there are no others"
    return (known.model(model.name) or {}).get("encoding", "one_hot")


def _size(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default


def _layers(job: str, there: Sequence[Mapping[str, Any]], here: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Name the first layer that differs in what has weights: dropout may."""
    if not here:
        return
    trained, new = _weighty(there), _weighty(json.loads(json.dumps(here)))
    for number in range(max(len(trained), len(new))):
        one, other = _at(trained, number), _at(new, number)
        if one != other:
            yield (
                f"The weights of {job} are of another model: layer {number + 1} is {_layer(one)} there and "
                f"{_layer(other)} here. Send the same model, on data of the same shape, or leave start_from out."
            )
            return


def _weighty(described: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in layer.items() if key not in {"dropout", "p"}}
        for layer in described
        if layer["type"] != "Dropout"
    ]


def _at(described: Sequence[Mapping[str, Any]], number: int) -> Mapping[str, Any] | None:
    return described[number] if number < len(described) else None


def _layer(described: Mapping[str, Any] | None) -> str:
    if described is None:
        return "missing"
    arguments = ", ".join(f"{key}={value}" for key, value in described.items() if key != "type")
    return f"{described['type']}({arguments})"
