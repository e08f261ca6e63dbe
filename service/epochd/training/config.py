"""What the engine is told, as plain frozen data. No torch here: the API process reads it too."""

from dataclasses import dataclass, field
from typing import Literal

Task = Literal["classification", "regression"]
Mode = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model by name. ``input_shape`` is one sample's: ``(features,)`` or ``(channels, height, width)``.

    ``outputs`` is the number of classes or of regression targets. A field that a model does not know is
    ignored.
    """

    name: Literal["linear", "mlp", "cnn"]
    input_shape: tuple[int, ...]
    outputs: int
    hidden_sizes: tuple[int, ...] = (128,)
    channels: tuple[int, ...] = (16, 32)
    hidden_size: int = 64
    dropout: float = 0.0
    batch_norm: bool = False


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
    """When to stop, and whether the best weights come out."""

    monitor: str = "validation_loss"
    mode: Mode = "min"
    patience: int = 5
    min_delta: float = 0.0
    start_epoch: int = 1
    target: float | None = None
    restore_best: bool = True


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything about one training but the data."""

    task: Task
    model: ModelConfig
    epochs: int
    batch_size: int
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: Literal["cross_entropy", "mse", "mae", "huber"] = "cross_entropy"
    validate_every_epochs: int = 1
    early_stopping: EarlyStoppingConfig | None = None
    seed: int = 0
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_clip_norm: float | None = None
    drop_last: bool = False
    max_runtime_seconds: float | None = None
