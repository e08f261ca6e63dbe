"""What a training is checked for before it starts, so that it fails with a reason and not inside a kernel."""

import numpy as np
from torch import Tensor

from epochd.errors import DataError, ModelError
from epochd.training.architecture import needs_two_samples
from epochd.training.config import TrainingConfig
from epochd.training.data import DiskSamples, Samples, TrainingData
from epochd.training.metric_names import EXTRA_METRICS, METRIC_NAMES
from epochd.training.plan import Plan

CLASSIFICATION_LOSSES = frozenset({"cross_entropy"})


def metric_names(config: TrainingConfig, *, has_validation: bool) -> tuple[str, ...]:
    """The names of the epoch metrics of a training."""
    measured = ("loss", METRIC_NAMES[config.task])
    of_validation = (*measured, *config.metrics) if has_validation else ()
    return (*(f"train_{name}" for name in measured), *(f"validation_{name}" for name in of_validation))


def check_config(config: TrainingConfig, names: tuple[str, ...]) -> None:
    """Raise ValueError where the configuration contradicts itself."""
    if (config.loss in CLASSIFICATION_LOSSES) != (config.task == "classification"):
        raise ValueError(f"The loss {config.loss} does not fit the task {config.task}.")
    _check_classes(config)
    unfitting = sorted({*config.metrics} - {*EXTRA_METRICS[config.task]})
    if unfitting:
        raise ValueError(f"The metrics {', '.join(unfitting)} do not fit the task {config.task}.")
    if config.augmentation is not None and config.model.data.kind != "image":
        raise ValueError(
            f"augmentation changes images; these samples are of the kind {config.model.data.kind}."
        )
    monitors = []
    if config.early_stopping is not None:
        monitors.append(("early_stopping.monitor", config.early_stopping.monitor))
    if config.schedule.name == "reduce_on_plateau":
        monitors.append(("schedule.monitor", config.schedule.monitor))
    for param, monitor in monitors:
        if monitor not in names:
            raise ValueError(f"{param} is {monitor!r}; the epoch metrics are {', '.join(names)}.")


def _check_classes(config: TrainingConfig) -> None:
    weights, outputs = config.class_weights, config.model.data.outputs
    if config.task == "regression" and (weights is not None or config.label_smoothing):
        raise ValueError("Only a classification has class_weights and label_smoothing.")
    if isinstance(weights, tuple) and len(weights) != outputs:
        raise ValueError(f"There are {len(weights)} class_weights; the model has {outputs} classes.")


def check_data(config: TrainingConfig, data: TrainingData, plan: Plan) -> None:
    """Raise DataError where the samples do not suit the model or hold what cannot be trained on."""
    for split, samples in (("training", data.train), ("validation", data.validation)):
        if samples is not None:
            _check_shapes(config, split, samples)
            _check_values(config, split, samples)
    if plan.last_batch_size == 1 and needs_two_samples(config.model):
        raise DataError(
            "The last mini-batch of an epoch has a single sample, which has no variance for batch normalisation. "
            "Set drop_last or take another batch size.",
            code="batch_norm_of_one_sample",
        )


def _check_shapes(config: TrainingConfig, split: str, samples: Samples | DiskSamples) -> None:
    if samples.shape != config.model.data.input_shape:
        raise DataError(
            f"A {split} sample has the shape {samples.shape}, "
            f"and the model takes {config.model.data.input_shape}.",
            code="wrong_shape",
        )
    if len(samples) != len(samples.y) or len(samples) == 0:
        raise DataError(
            f"The {split} split has {len(samples)} samples and {len(samples.y)} targets; "
            "it takes at least one sample, and as many targets.",
            code="wrong_shape",
        )
    targets = samples.y.shape[1] if samples.y.ndim > 1 else 1
    if config.task == "regression" and targets != config.model.data.outputs:
        raise DataError(
            f"A {split} sample has {targets} target(s); the model has {config.model.data.outputs} output(s).",
            code="wrong_shape",
        )


def _check_values(config: TrainingConfig, split: str, samples: Samples | DiskSamples) -> None:
    # What is on the disk is checked as it is read.
    features = [samples.x] if isinstance(samples, Samples) else []
    arrays = features if config.task == "classification" else [*features, samples.y]
    # The extremes carry every NaN and infinity, and need no array of flags beside the data.
    if not all(np.isfinite([array.min(), array.max()]).all() for array in arrays):
        raise DataError(f"The {split} split holds NaN or infinite values.", code="non_finite_data")
    if (
        config.task == "classification"
        and not 0 <= samples.y.min() <= samples.y.max() < config.model.data.outputs
    ):
        raise DataError(
            f"The {split} split has class numbers {samples.y.min()} to {samples.y.max()}; "
            f"the model has {config.model.data.outputs} classes, from 0 on.",
            code="class_out_of_range",
        )


def check_outputs(outputs: Tensor, y: Tensor) -> None:
    """Raise ModelError for outputs that the loss would match with other targets than theirs, by broadcasting."""
    fits = outputs.shape == y.shape if y.ndim > 1 else outputs.ndim == 2 and len(outputs) == len(y)  # noqa: PLR2004
    if not fits:
        wanted = tuple(y.shape) if y.ndim > 1 else (len(y), "classes")
        raise ModelError(
            f"The model gives outputs of the shape {tuple(outputs.shape)} for {len(y)} samples, and not {wanted}.",
            code="model_not_trainable",
        )
