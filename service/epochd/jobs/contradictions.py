"""What in a spec contradicts itself, its data set or its plan; every function returns all that it finds."""

from collections.abc import Iterator

from epochd.contract.spec import (
    CosineSchedule,
    EarlyStopping,
    JobSpec,
    PlateauSchedule,
    Sgd,
    SyntheticDataset,
)
from epochd.datasets.catalogue import MAX_SYNTHETIC_BYTES, synthetic_bytes
from epochd.datasets.info import DatasetInfo
from epochd.errors import ParamError
from epochd.jobs import fitting
from epochd.training.plan import Plan

MIN_R2_SAMPLES = 2


def of_synthetic(dataset: SyntheticDataset) -> list[ParamError]:
    """What contradicts in a synthetic data set whose task, classes and targets are filled in."""
    if dataset.task == "classification":
        return [
            *_targets_of_classes(dataset),
            *_impossible_clusters(dataset),
            *_too_large(dataset, dataset.classes or 0),
        ]
    return [*_classes_of_targets(dataset), *_too_large(dataset, dataset.targets or 0)]


def _targets_of_classes(dataset: SyntheticDataset) -> Iterator[ParamError]:
    if dataset.targets is not None:
        message = (
            "targets belong to regression, but the task is classification: send classes instead, or task "
            "regression."
        )
        yield ParamError("dataset.targets", message, "targets_with_classification")


def _classes_of_targets(dataset: SyntheticDataset) -> Iterator[ParamError]:
    if dataset.classes is not None:
        message = (
            "classes belong to classification, but the task is regression (targets or task say so): send "
            "one of the two."
        )
        yield ParamError("dataset.classes", message, "classes_with_regression")


def _impossible_clusters(dataset: SyntheticDataset) -> Iterator[ParamError]:
    if dataset.noise > 1:
        message = (
            "noise is the fraction of labels drawn at random in a classification, at most 1; got "
            f"{dataset.noise:g}."
        )
        yield ParamError("dataset.noise", message, "noise_out_of_range")
    if dataset.classes is not None and dataset.classes > dataset.samples:
        message = f"{dataset.classes} classes need at least as many samples; there are {dataset.samples}."
        yield ParamError("dataset.classes", message, "more_classes_than_samples")


def _too_large(dataset: SyntheticDataset, outputs: int) -> Iterator[ParamError]:
    size = synthetic_bytes(samples=dataset.samples, features=dataset.features, outputs=outputs)
    if size > MAX_SYNTHETIC_BYTES:
        message = (
            f"{dataset.samples} samples of {dataset.features} features and {outputs} outputs take "
            f"{size / 2**30:.1f} GiB; at most {MAX_SYNTHETIC_BYTES / 2**30:g} GiB are made. Take fewer "
            "samples or features."
        )
        yield ParamError("dataset.samples", message, "dataset_too_large")


def without_data(spec: JobSpec) -> list[ParamError]:
    """What contradicts whatever the data set is."""
    return [*_optimizer(spec), *_schedule(spec), *_early_stopping(spec), *_needs_validation(spec)]


def _optimizer(spec: JobSpec) -> Iterator[ParamError]:
    optimizer = spec.optimizer
    if isinstance(optimizer, Sgd) and optimizer.nesterov and optimizer.momentum == 0:
        message = (
            "nesterov looks ahead along the momentum, which is 0: send a momentum such as 0.9, or nesterov "
            "false."
        )
        yield ParamError("optimizer.nesterov", message, "nesterov_needs_momentum")


def _schedule(spec: JobSpec) -> Iterator[ParamError]:
    schedule = spec.schedule
    if not isinstance(schedule, CosineSchedule | PlateauSchedule):
        return
    if schedule.min_learning_rate > spec.optimizer.learning_rate:
        message = (
            f"min_learning_rate {schedule.min_learning_rate:g} exceeds the optimizer's learning rate "
            f"{spec.optimizer.learning_rate:g}: lower the one or raise the other."
        )
        yield ParamError("schedule.min_learning_rate", message, "min_exceeds_learning_rate")


def _early_stopping(spec: JobSpec) -> Iterator[ParamError]:
    policy = spec.early_stopping
    if policy is not None and policy.start_epoch > spec.epochs:
        message = (
            f"start_epoch {policy.start_epoch} comes after the last epoch, {spec.epochs}: no epoch would be "
            "looked at."
        )
        yield ParamError("early_stopping.start_epoch", message, "start_epoch_after_last_epoch")


def _needs_validation(spec: JobSpec) -> Iterator[ParamError]:
    if spec.validation is not None:
        return
    policy = spec.early_stopping
    if policy is not None and _is_of_validation(policy.monitor):
        yield ParamError("early_stopping.monitor", _no_split(policy), "early_stopping_needs_validation")
    schedule = spec.schedule
    if isinstance(schedule, PlateauSchedule) and schedule.monitor and _is_of_validation(schedule.monitor):
        message = (
            f"{schedule.monitor} is not measured without validation: send a validation fraction, or monitor "
            "train_loss."
        )
        yield ParamError("schedule.monitor", message, "schedule_needs_validation")


def _no_split(policy: EarlyStopping) -> str:
    return (
        f"Early stopping watches {policy.monitor or 'validation_loss'}, but validation is null: send a "
        "validation fraction "
        'such as {"fraction": 0.2}, or monitor a metric of the training split, train_loss for instance.'
    )


def _is_of_validation(monitor: str | None) -> bool:
    return monitor is None or monitor.startswith("validation_")


def with_data(spec: JobSpec, info: DatasetInfo) -> list[ParamError]:
    """What of a filled-in spec does not fit its data set."""
    return [*fitting.of_data(spec, info), *_monitors(spec, info)]


def _monitors(spec: JobSpec, info: DatasetInfo) -> Iterator[ParamError]:
    known = [f"{split}_{metric}" for split in ("train", "validation") for metric in info.metrics]
    known += [f"validation_{metric}" for metric in spec.metrics]
    schedule = spec.schedule if isinstance(spec.schedule, PlateauSchedule) else None
    for param, watch in (("early_stopping.monitor", spec.early_stopping), ("schedule.monitor", schedule)):
        if watch is not None and watch.monitor not in known:
            message = f"There is no metric {watch.monitor!r}; {info.name} gives {', '.join(known)}."
            yield ParamError(param, message, "unknown_metric")


def with_plan(spec: JobSpec, info: DatasetInfo, plan: Plan) -> list[ParamError]:
    """What of a filled-in spec does not work out in mini-batches and iterations."""
    return [*_warmup(spec, plan), *fitting.of_plan(spec, info, plan), *_unmeasurable(spec, plan)]


def _warmup(spec: JobSpec, plan: Plan) -> Iterator[ParamError]:
    warmup = spec.schedule.warmup_iterations
    if warmup >= plan.total_iterations:
        message = (
            f"A warm-up of {warmup} iterations does not end within the training's {plan.total_iterations}: "
            f"take fewer, or more epochs ({plan.iterations_per_epoch} iterations each)."
        )
        yield ParamError("schedule.warmup_iterations", message, "warmup_exceeds_training")


def _unmeasurable(spec: JobSpec, plan: Plan) -> Iterator[ParamError]:
    policy = spec.early_stopping
    if policy is None or policy.monitor != "validation_r2" or plan.validation_samples >= MIN_R2_SAMPLES:
        return
    if spec.validation is not None:
        message = (
            "R² has no value on 1 validation sample: take a larger validation fraction, or monitor "
            "validation_loss."
        )
        yield ParamError("early_stopping.monitor", message, "too_few_validation_samples")
