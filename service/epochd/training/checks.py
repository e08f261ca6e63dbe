"""What a training is checked for before it starts, so that it fails with a reason and not inside a kernel."""

import numpy as np

from epochd.errors import DataError
from epochd.training.config import TrainingConfig
from epochd.training.data import Samples, TrainingData
from epochd.training.metrics import METRIC_NAMES
from epochd.training.plan import Plan

CLASSIFICATION_LOSSES = frozenset({"cross_entropy"})


def metric_names(config: TrainingConfig, *, has_validation: bool) -> tuple[str, ...]:
    """The names of the epoch metrics of a training."""
    splits = ("train", "validation") if has_validation else ("train",)
    return tuple(f"{split}_{name}" for split in splits for name in ("loss", METRIC_NAMES[config.task]))


def check_config(config: TrainingConfig, names: tuple[str, ...]) -> None:
    """Raise ValueError where the configuration contradicts itself."""
    if (config.loss in CLASSIFICATION_LOSSES) != (config.task == "classification"):
        raise ValueError(f"The loss {config.loss} does not fit the task {config.task}.")
    monitors = []
    if config.early_stopping is not None:
        monitors.append(("early_stopping.monitor", config.early_stopping.monitor))
    if config.schedule.name == "reduce_on_plateau":
        monitors.append(("schedule.monitor", config.schedule.monitor))
    for param, monitor in monitors:
        if monitor not in names:
            raise ValueError(f"{param} is {monitor!r}; the epoch metrics are {', '.join(names)}.")


def check_data(config: TrainingConfig, data: TrainingData, plan: Plan) -> None:
    """Raise DataError where the samples do not suit the model or hold what cannot be trained on."""
    for split, samples in (("training", data.train), ("validation", data.validation)):
        if samples is not None:
            _check_shapes(config, split, samples)
            _check_values(config, split, samples)
    if config.model.name == "mlp" and config.model.batch_norm and plan.last_batch_size == 1:
        raise DataError(
            "The last mini-batch of an epoch has a single sample, which has no variance for batch_norm. "
            "Set drop_last or take another batch size.",
            code="batch_norm_of_one_sample",
        )


def _check_shapes(config: TrainingConfig, split: str, samples: Samples) -> None:
    if samples.x.shape[1:] != config.model.input_shape:
        raise DataError(
            f"A {split} sample has the shape {samples.x.shape[1:]}, "
            f"and the model takes {config.model.input_shape}.",
            code="wrong_shape",
        )
    if len(samples.x) != len(samples.y) or len(samples.x) == 0:
        raise DataError(
            f"The {split} split has {len(samples.x)} samples and {len(samples.y)} targets; "
            "it takes at least one sample, and as many targets.",
            code="wrong_shape",
        )
    targets = samples.y.shape[1] if samples.y.ndim > 1 else 1
    if config.task == "regression" and targets != config.model.outputs:
        raise DataError(
            f"A {split} sample has {targets} target(s); the model has {config.model.outputs} output(s).",
            code="wrong_shape",
        )


def _check_values(config: TrainingConfig, split: str, samples: Samples) -> None:
    arrays = [samples.x] if config.task == "classification" else [samples.x, samples.y]
    # The extremes carry every NaN and infinity, and need no array of flags beside the data.
    if not all(np.isfinite([array.min(), array.max()]).all() for array in arrays):
        raise DataError(f"The {split} split holds NaN or infinite values.", code="non_finite_data")
    if config.task == "classification" and not 0 <= samples.y.min() <= samples.y.max() < config.model.outputs:
        raise DataError(
            f"The {split} split has class numbers {samples.y.min()} to {samples.y.max()}; "
            f"the model has {config.model.outputs} classes, from 0 on.",
            code="class_out_of_range",
        )
