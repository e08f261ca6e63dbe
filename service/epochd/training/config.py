"""What the engine is told, as plain frozen data. No torch here: the API process reads it too."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Task = Literal["classification", "regression"]
Kind = Literal["table", "image", "array", "text"]
Mode = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class DataShape:
    """What a model takes and gives: all that its widths depend on, beside its own parameters.

    ``input_shape`` is one sample's, as the engine gets it: ``(features,)`` for a table, ``(channels, height,
    width)`` for images, ``(words,)`` for a text. ``outputs`` is the number of classes or of regression targets.

    ``categories`` are for tables whose categories come as codes, in the last columns: how many codes 0, 1, … each
    of these columns has. ``vocabulary`` is for texts: how many words there are, the numbers 0 (padding) and 1
    (unknown) included.
    """

    kind: Kind
    input_shape: tuple[int, ...]
    outputs: int
    categories: tuple[int, ...] = ()
    vocabulary: int = 0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model by name, for data of a shape.

    ``parameters`` are the model's own; those that are left out are its defaults. A name that is not in
    ``architecture.BUILT_IN`` is an operator's model.
    """

    name: str
    data: DataShape
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """An optimizer by name; ``betas`` and ``eps`` are Adam's, ``momentum`` and ``nesterov`` SGD's."""

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """A learning-rate schedule by name; each reads the fields that it knows."""

    name: Literal["constant", "cosine", "step", "one_cycle", "reduce_on_plateau"] = "constant"
    warmup_iterations: int = 0
    min_learning_rate: float = 0.0
    step_epochs: int = 10
    gamma: float = 0.1
    rise_fraction: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    factor: float = 0.1
    patience: int = 5
    min_delta: float = 0.0
    monitor: str = "validation_loss"
    mode: Mode = "min"


@dataclass(frozen=True, slots=True)
class EarlyStoppingConfig:
    """When to stop, and whether the best weights come out.

    ``min_delta`` is a number, or ``"auto"``: measured, see ``EarlyStopping``.
    """

    monitor: str = "validation_loss"
    mode: Mode = "min"
    patience: int = 5
    min_delta: float | Literal["auto"] = 0.0
    start_epoch: int = 1
    target: float | None = None
    restore_best: bool = True


@dataclass(frozen=True, slots=True)
class AugmentationConfig:
    """How the images of each mini-batch are changed at random; ``crop_padding`` in pixels."""

    horizontal_flip: bool = False
    vertical_flip: bool = False
    crop_padding: int = 0


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything about one training but the data.

    ``class_weights`` says what a sample of each class counts in the loss, see ``losses``; ``metrics`` are
    measured on the validation split, see ``extra_metrics``.
    """

    task: Task
    model: ModelConfig
    epochs: int
    batch_size: int
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: Literal["cross_entropy", "mse", "mae", "huber"] = "cross_entropy"
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    metrics: tuple[str, ...] = ()
    augmentation: AugmentationConfig | None = None
    validate_every_epochs: int = 1
    early_stopping: EarlyStoppingConfig | None = None
    seed: int = 0
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_clip_norm: float | None = None
    drop_last: bool = False
    max_runtime_seconds: float | None = None
