"""From the spec that a caller sent to one with nothing left open, or to everything that is wrong with it."""

from typing import Any

from epochd.contract.job import Advice
from epochd.contract.spec import (
    EarlyStopping,
    JobSpec,
    Loss,
    PlateauSchedule,
    SyntheticDataset,
    Validation,
)
from epochd.datasets.catalogue import SYNTHETIC, describe
from epochd.datasets.info import DatasetInfo
from epochd.errors import InvalidRequestError, ParamError
from epochd.jobs import contradictions, fitting, operator_models, validation_data, warm_start
from epochd.jobs.known import BUILT_IN, Known
from epochd.training.advice import advise
from epochd.training.metric_names import better
from epochd.training.plan import Plan, make_plan
from epochd.training.variation import LEAST

DEFAULT_CLASSES = 2
DEFAULT_TARGETS = 1
DEFAULT_FRACTION = 0.2
PROVISIONAL_BATCH_SIZE = 32


def resolve(spec: JobSpec, known: Known = BUILT_IN) -> JobSpec:
    """Fill in everything that depends on the data set; what is filled in already stays as it is.

    Raises ``InvalidRequestError`` with one entry for everything that contradicts.
    """
    try:
        info = dataset_info(spec, known)
    except InvalidRequestError as error:
        raise InvalidRequestError.of(*error.errors, *contradictions.without_data(spec)) from None
    resolved = _fill(spec, info, known)
    errors = [*contradictions.without_data(spec), *contradictions.with_data(resolved, info)]
    errors += operator_models.contradictions(resolved, info, known)
    errors += warm_start.contradictions(resolved, info, known)
    errors += validation_data.contradictions(resolved, info, known)
    errors += _unplannable(resolved, info, known) or contradictions.with_plan(
        resolved, info, plan_of(_with_most_iterations(resolved), known)
    )
    if errors:
        raise InvalidRequestError.of(*errors)
    return resolved


def dataset_info(spec: JobSpec, known: Known = BUILT_IN) -> DatasetInfo:
    """What the spec trains on.

    Raises ``InvalidRequestError`` for an unknown data set or a synthetic one that contradicts itself.
    """
    dataset = _filled_dataset(spec.dataset)
    if isinstance(dataset, str):
        return known.dataset(dataset).info
    errors = contradictions.of_synthetic(dataset)
    if errors:
        raise InvalidRequestError.of(*errors)
    return describe(dataset.model_dump())


def plan_of(spec: JobSpec, known: Known = BUILT_IN) -> Plan:
    """The mini-batches and iterations of a resolved spec."""
    return _plan(spec, dataset_info(spec, known).samples, known)


def advice_of(spec: JobSpec, plan: Plan) -> list[Advice]:
    """What works about a resolved spec but could be better."""
    if spec.batch_size == "auto":
        return [_measured_later(plan), *_policy_advice(spec)]
    given = advise(
        plan=plan,
        epochs=spec.epochs,
        early_stopping=spec.early_stopping is not None,
        validation=spec.validation is not None,
        batch_norm=getattr(spec.model, "batch_norm", False),
    )
    return [Advice(code=a.code, param=a.param, message=a.message) for a in given] + _policy_advice(spec)


def _measured_later(plan: Plan) -> Advice:
    return Advice(
        code="batch_size_auto",
        param="batch_size",
        message=(
            "The batch size is measured on the device before training begins, which takes some seconds; until then "
            f"the plan is that of {plan.batch_size}."
        ),
    )


def _plan(spec: JobSpec, samples: int, known: Known) -> Plan:
    train, validation = validation_data.sizes(spec, samples, known)
    return make_plan(
        train_samples=train,
        validation_samples=validation,
        batch_size=_provisional(train) if spec.batch_size == "auto" else spec.batch_size,
        epochs=spec.epochs,
        drop_last=spec.drop_last,
    )


def _with_most_iterations(spec: JobSpec) -> JobSpec:
    """A size that is still to be measured may come to any that the rest of the spec allows: the smallest at worst."""
    return spec.model_copy(update={"batch_size": 1}) if spec.batch_size == "auto" else spec


def _provisional(train_samples: int) -> int:
    """What a job is planned with until its batch size is measured."""
    return min(PROVISIONAL_BATCH_SIZE, 1 << (train_samples.bit_length() - 1)) if train_samples else 1


def _unplannable(spec: JobSpec, info: DatasetInfo, known: Known) -> list[ParamError]:
    """Why there is no plan: no sample left to validate on, or no mini-batch to train on."""
    is_split = spec.validation is not None and spec.validation.dataset is None
    if is_split and info.samples < 2:  # noqa: PLR2004 - one for each side
        message = (
            f"{info.samples} sample cannot be split into training and validation: make 2 or more, or send "
            "validation null."
        )
        return [ParamError("validation.fraction", message, "too_few_samples")]
    try:
        _plan(spec, info.samples, known)
    except ValueError as error:
        return [ParamError("drop_last", str(error), "no_mini_batch")]
    return []


def _fill(spec: JobSpec, info: DatasetInfo, known: Known) -> JobSpec:
    return spec.model_copy(
        update={
            "dataset": _named_by_id(_filled_dataset(spec.dataset), known),
            "validation": _filled_validation(spec.validation, known),
            "model": operator_models.filled(spec.model, known) or fitting.default_model(info),
            "loss": spec.loss or _default_loss(info),
            "schedule": _filled_schedule(spec),
            "early_stopping": _filled_early_stopping(spec),
        }
    )


def _filled_dataset(dataset: str | SyntheticDataset) -> str | SyntheticDataset:
    if dataset == SYNTHETIC:
        dataset = SyntheticDataset(name="synthetic")
    if isinstance(dataset, str):
        return dataset
    task = dataset.task or ("classification" if dataset.targets is None else "regression")
    update: dict[str, Any] = {"task": task}
    if task == "classification" and dataset.classes is None:
        update["classes"] = DEFAULT_CLASSES
    if task == "regression" and dataset.targets is None:
        update["targets"] = DEFAULT_TARGETS
    return dataset.model_copy(update=update)


def _named_by_id(dataset: str | SyntheticDataset, known: Known) -> str | SyntheticDataset:
    """Name a data set so that nobody can change what is meant."""
    return known.dataset(dataset).id if isinstance(dataset, str) else dataset


def _filled_validation(validation: Validation | None, known: Known) -> Validation | None:
    if validation is None:
        return None
    if validation.dataset is not None:
        return validation.model_copy(
            update={"dataset": known.dataset(validation.dataset, "validation.dataset").id}
        )
    return validation.model_copy(update={"fraction": validation.fraction or DEFAULT_FRACTION})


def _default_loss(info: DatasetInfo) -> Loss:
    return "cross_entropy" if info.task == "classification" else "mse"


def _filled_schedule(spec: JobSpec) -> Any:
    schedule = spec.schedule
    if not isinstance(schedule, PlateauSchedule):
        return schedule
    default = "validation_loss" if spec.validation else "train_loss"
    monitor = default if schedule.monitor is None else schedule.monitor
    return schedule.model_copy(update={"monitor": monitor, "mode": schedule.mode or better(monitor)})


def _filled_early_stopping(spec: JobSpec) -> EarlyStopping | None:
    policy = spec.early_stopping
    if policy is None:
        return None
    monitor = "validation_loss" if policy.monitor is None else policy.monitor
    return policy.model_copy(update={"monitor": monitor, "mode": policy.mode or better(monitor)})


def _policy_advice(spec: JobSpec) -> list[Advice]:
    """Early stopping and plateau policies that cannot do what they look made for."""
    found = []
    policy = spec.early_stopping
    if policy and policy.target is None and policy.patience > spec.epochs - policy.start_epoch:
        found.append(_never_stops(spec, policy))
    if policy and policy.min_delta == "auto" and _validations(spec, policy) <= LEAST:
        found.append(_never_measured(spec, policy))
    schedule = spec.schedule if isinstance(spec.schedule, PlateauSchedule) else None
    for param, watch in (("early_stopping.mode", policy), ("schedule.mode", schedule)):
        if watch and watch.monitor and watch.mode != better(watch.monitor):
            found.append(_unusual_mode(param, watch.monitor, str(watch.mode)))
    return found


def _never_stops(spec: JobSpec, policy: EarlyStopping) -> Advice:
    return Advice(
        code="patience_exceeds_epochs",
        param="early_stopping.patience",
        message=(
            f"A patience of {policy.patience} epochs from epoch {policy.start_epoch} on never ends a "
            f"training of {spec.epochs} epochs early, though the best epoch is still kept. Lower the "
            "patience or raise epochs."
        ),
    )


def _validations(spec: JobSpec, policy: EarlyStopping) -> int:
    """How many epochs the policy looks at, at most."""
    every = spec.validation.every_epochs if spec.validation and str(policy.monitor)[:6] != "train_" else 1
    return spec.epochs // every - (policy.start_epoch - 1) // every


def _never_measured(spec: JobSpec, policy: EarlyStopping) -> Advice:
    return Advice(
        code="min_delta_not_measured",
        param="early_stopping.min_delta",
        message=(
            f"min_delta auto is measured from {LEAST} values of {policy.monitor}, and this training has only "
            f"{_validations(spec, policy)}: any gain will count as an improvement. Raise epochs or send a number."
        ),
    )


def _unusual_mode(param: str, monitor: str, mode: str) -> Advice:
    direction = "lower" if better(monitor) == "min" else "higher"
    return Advice(
        code="unusual_mode",
        param=param,
        message=(
            f"The mode {mode!r} takes the worst {monitor} for the best: {direction} is better. Send mode "
            f"{better(monitor)!r} or leave it out, unless that is what you want."
        ),
    )
