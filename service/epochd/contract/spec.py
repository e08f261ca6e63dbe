"""The job spec: what a caller asks for. Defaults that depend on the data set are filled in by ``jobs.resolve``."""

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag

from epochd.contract.base import Request
from epochd.contract.models import Model

MAX_SAMPLES = 10_000_000
MAX_EPOCHS = 1_000_000

PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
"""No control characters: they garble logs and tables, and Postgres cannot store NUL."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE)]
TAG_KEY = r"^[A-Za-z0-9_.\-]{1,64}$"
DEVICE = r"^(auto|cpu|cuda(:[0-9]{1,3})?)$"

TagKey = Annotated[str, StringConstraints(pattern=TAG_KEY)]
TagValue = Annotated[str, StringConstraints(max_length=256, pattern=PRINTABLE)]
LearningRate = Annotated[float, Field(gt=0, le=1e6)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Epochs = Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Tags = Annotated[dict[TagKey, TagValue], Field(max_length=64)]


class SyntheticDataset(Request):
    """A made-up data set: Gaussian clusters (classification) or a noisy linear function (regression)."""

    name: Literal["synthetic"]
    task: Literal["classification", "regression"] | None = None
    """By default `regression` when `targets` is given, else `classification`."""
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1000
    features: Annotated[int, Field(ge=1, le=65_536)] = 20
    classes: Annotated[int, Field(ge=2, le=10_000)] | None = None
    """Classification only; 2 by default."""
    targets: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Regression only; 1 by default."""
    noise: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    """Classification: the fraction of labels drawn at random, at most 1. Regression: the standard deviation
    of the noise, in standard deviations of the noiseless target."""
    seed: Seed = 0


def _dataset_kind(value: Any) -> str:
    return "synthetic" if isinstance(value, dict | SyntheticDataset) else "name"


Dataset = Annotated[
    Annotated[Name, Tag("name")] | Annotated[SyntheticDataset, Tag("synthetic")],
    Discriminator(_dataset_kind),
]


class Sgd(Request):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    learning_rate: LearningRate = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.0


class Adam(Request):
    """Adam (Kingma and Ba, 2015); weight decay is added to the gradient."""

    name: Literal["adam"]
    learning_rate: LearningRate = 0.001
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [
        0.9,
        0.999,
    ]
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.0


class AdamW(Request):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"]
    learning_rate: LearningRate = 0.001
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [
        0.9,
        0.999,
    ]
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.01


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]


class _Schedule(Request):
    warmup_iterations: Annotated[int, Field(ge=0, le=10**12)] = 0
    """Iterations over which the learning rate rises linearly to its full value before the schedule begins."""


class ConstantSchedule(_Schedule):
    """The learning rate stays what it is."""

    name: Literal["constant"]


class CosineSchedule(_Schedule):
    """Half a cosine from the learning rate down to `min_learning_rate` (Loshchilov and Hutter, 2017)."""

    name: Literal["cosine"]
    min_learning_rate: Annotated[float, Field(ge=0, le=1e6)] = 0.0


class StepSchedule(_Schedule):
    """The learning rate times `gamma` every `step_epochs` epochs."""

    name: Literal["step"]
    step_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] = 10
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1


class OneCycleSchedule(_Schedule):
    """Up from a fraction of the learning rate, then down to nearly nothing, along a cosine (Smith and Topin, 2019).

    It begins at `learning_rate / div_factor` and ends at `learning_rate / (div_factor * final_div_factor)`.
    """

    name: Literal["one_cycle"]
    rise_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Part of the iterations spent on the way up."""
    div_factor: Annotated[float, Field(ge=1, le=1e6)] = 25.0
    final_div_factor: Annotated[float, Field(ge=1, le=1e9)] = 1e4


class PlateauSchedule(_Schedule):
    """The learning rate times `factor` whenever `monitor` has not improved for more than `patience` epochs."""

    name: Literal["reduce_on_plateau"]
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Annotated[int, Field(ge=0, le=MAX_EPOCHS)] = 5
    min_delta: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    min_learning_rate: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    monitor: str | None = None
    """An epoch metric; by default `validation_loss`, without validation `train_loss`."""
    mode: Literal["min", "max"] | None = None
    """By default `min` for a loss or an error and `max` for any other metric."""


Schedule = Annotated[
    ConstantSchedule | CosineSchedule | StepSchedule | OneCycleSchedule | PlateauSchedule,
    Field(discriminator="name"),
]

Loss = Literal["cross_entropy", "mse", "mae", "huber"]
ExtraMetric = Literal[
    "balanced_accuracy", "precision", "recall", "f1", "auroc", "average_precision", "mae", "rmse", "mape"
]
ClassWeight = Annotated[float, Field(gt=0, le=1e6)]


class Validation(Request):
    """What is validated on: a part of the samples that is held back, or another data set; and how often."""

    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """By default 0.2, unless `dataset` is given."""
    dataset: Name | None = None
    """Validate on all of this data set, which has the same columns and classes; none of `dataset` is held back."""
    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] = 1
    """The last epoch is always validated."""


class Augmentation(Request):
    """Changes the images of each mini-batch at random, by the seed; validation sees them as they are."""

    horizontal_flip: bool = False
    """Half of the images are mirrored, left and right."""
    vertical_flip: bool = False
    """Half of the images are mirrored, top and bottom."""
    crop_padding: Annotated[int, Field(ge=0, le=1024)] = 0
    """Each image is moved by up to so many pixels in both directions; what is uncovered is filled with the mean."""


class StartFrom(Request):
    """A job whose weights, and preprocessing, training begins with."""

    job: Name
    checkpoint: Literal["best", "last"] = "best"
    """`best`: the weights in its artifacts; `last`: those after its last iteration."""


def _auto(value: Any) -> Any:
    if value != "auto":
        raise ValueError(f'must be a number of at least 0, or "auto"; got {json.dumps(value)[:80]}')
    return value


def _number_or_auto(value: Any) -> str:
    return "auto" if isinstance(value, str) else "number"


def _auto_size(value: Any) -> Any:
    if value != "auto":
        raise ValueError(f'must be a whole number of at least 1, or "auto"; got {json.dumps(value)[:80]}')
    return value


BatchSize = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SAMPLES), Tag("number")]
    | Annotated[Literal["auto"], BeforeValidator(_auto_size), Tag("auto")],
    Discriminator(_number_or_auto),
]
Patience = Annotated[int, Field(ge=0, le=MAX_EPOCHS)]
MinDelta = Annotated[
    Annotated[float, Field(ge=0, le=1e12), Tag("number")]
    | Annotated[Literal["auto"], BeforeValidator(_auto), Tag("auto")],
    Discriminator(_number_or_auto),
]


class EarlyStopping(Request):
    """Stop when the monitored metric has not improved for `patience` epochs."""

    monitor: str | None = None
    """An epoch metric; by default `validation_loss`, without validation an error."""
    mode: Literal["min", "max"] | None = None
    """By default `min` for a loss or an error and `max` for any other metric."""
    patience: Patience = 5
    """Epochs without improvement after which training stops."""
    min_delta: MinDelta = 0.0
    """A change of the metric up to this much is no improvement. `auto`: as much as its own variation explains."""
    start_epoch: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] = 1
    """The first epoch that is looked at."""
    target: float | None = None
    """Stop as soon as the metric is at least this good."""
    restore_best: bool = True
    """The artifacts hold the weights of the best epoch; otherwise those of the last."""


class Checkpoint(Request):
    """How often training saves everything that it resumes from.

    Whatever is chosen here, an interrupted job ends with the same metrics and weights, bit for bit on CPU, as
    one that was left alone: the rest of this only says how much is trained again. A pause, a cancellation and
    the shutdown of a worker save one more. Training does not wait for the disk.
    """

    every_epochs: Epochs = 1
    """At the end of every so many epochs. Epochs shorter than a second share a checkpoint."""
    every_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60
    """Within an epoch, when the last checkpoint is so old."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    """The newest so many stay on the disk, and the one of the best epoch besides."""


class JobSpec(Request):
    """What to train, on what, for how long. Only `dataset`, `epochs` and `batch_size` are required."""

    name: Name | None = None
    dataset: Dataset
    model: Model | None = None
    """By default an `mlp` that fits the data set."""
    epochs: Epochs
    """Passes over the training samples, at most."""
    batch_size: BatchSize
    """Samples in one mini-batch. `auto` measures sizes on the device before training, takes the one that
    `POST /v1/batch-size` would recommend, and puts it here."""
    optimizer: Optimizer = AdamW(name="adamw")
    schedule: Schedule = ConstantSchedule(name="constant")
    loss: Loss | None = None
    """By default `cross_entropy` for classification and `mse` for regression."""
    class_weights: Literal["balanced"] | Annotated[dict[str, ClassWeight], Field(min_length=1)] | None = None
    """What a sample of each class counts in the loss: `balanced` makes all classes count alike; classes that are not
    named count 1."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of each label that is spread evenly over all classes."""
    metrics: Annotated[list[ExtraMetric], Field(max_length=9)] = []
    """Measured on the validation split besides `accuracy` or `r2`, as `validation_f1` and so on."""
    augmentation: Augmentation | None = None
    """Images only."""
    validation: Validation | None = Validation()
    """`null` trains on all samples and validates on none."""
    start_from: StartFrom | None = None
    """Begin with the weights of another job, whose model has the same shapes."""
    export: Annotated[list[Literal["pt2", "onnx"]], Field(max_length=2)] = []
    """Further artifacts: `model.pt2` (torch.export) and `model.onnx`, which run without epochd. Each takes seconds."""
    early_stopping: EarlyStopping | None = None
    seed: Seed = 0
    device: Annotated[str, StringConstraints(pattern=DEVICE)] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_clip_norm: Annotated[float, Field(gt=0, le=1e12)] | None = None
    drop_last: bool = False
    """Leave out the last mini-batch of an epoch when it is smaller than the others."""
    checkpoint: Checkpoint = Checkpoint()
    max_runtime_seconds: Annotated[float, Field(gt=0, le=10**9)] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    priority: Priority = 0
    """Jobs of higher priority start first; among equals the oldest."""
    tags: Annotated[Tags, Field(default_factory=dict)]
    webhook: None = None
    """Reserved; only `null` is accepted."""
