"""Whether model, loss, metrics, class weights and augmentation suit the data set; all that does not is returned."""

import difflib
from collections.abc import Iterator

from epochd.contract.models import (
    BUILTIN_MODELS,
    BuiltinModel,
    CnnModel,
    FtTransformerModel,
    Kind,
    MlpModel,
    Model,
    TextClassifierModel,
)
from epochd.contract.spec import JobSpec
from epochd.datasets.info import DatasetInfo
from epochd.errors import ParamError
from epochd.training.architecture import needs_two_samples
from epochd.training.config import DataShape, ModelConfig
from epochd.training.metric_names import EXTRA_METRICS
from epochd.training.plan import Plan

FEW_SAMPLES = 200
MIN_BATCH_NORM_SAMPLES = 2
LOSSES = {"classification": ("cross_entropy",), "regression": ("mse", "mae", "huber")}
NEEDED = {"image": "images", "text": "texts", "table": "a table", "array": "an array"}


def default_model(info: DatasetInfo) -> Model:
    """The model of a spec that names none."""
    if info.kind == "text":
        return TextClassifierModel(name="text_classifier")
    # A second hidden layer learns more in each iteration, and few samples are few iterations.
    return MlpModel(name="mlp", hidden_sizes=[128, 128] if info.samples < FEW_SAMPLES else [128])


def of_data(spec: JobSpec, info: DatasetInfo) -> list[ParamError]:
    """What of a filled-in spec does not fit its data set."""
    return [
        *_model(spec, info),
        *_heads(spec),
        *_loss(spec, info),
        *_class_weights(spec, info),
        *_label_smoothing(spec, info),
        *_metrics(spec, info),
        *_augmentation(spec, info),
    ]


def _model(spec: JobSpec, info: DatasetInfo) -> Iterator[ParamError]:
    model = spec.model
    if not isinstance(model, BuiltinModel):
        return
    name = model.model_dump()["name"]
    if info.kind not in model.KINDS:
        yield _other_data(name, model.KINDS, info)
    elif info.task not in model.TASKS:
        message = f"{name} is for {' and '.join(model.TASKS)}, but the task of {info.name} is {info.task}."
        yield ParamError("model.name", message, "model_does_not_fit_task")
    elif isinstance(model, CnnModel):
        yield from _poolings(model, info)


def _other_data(name: str, kinds: tuple[Kind, ...], info: DatasetInfo) -> ParamError:
    needed = " or ".join(NEEDED[kind] for kind in kinds)
    message = f"{name} needs {needed}, but {info.name} {_what_it_is(info)}: take {_models_for(info)}."
    code = {"image": "images", "text": "texts", "table": "tables", "array": "arrays"}[kinds[0]]
    return ParamError("model.name", message, f"model_needs_{code}")


def _what_it_is(info: DatasetInfo) -> str:
    if info.kind == "table":
        return f"is a table of {info.shape[0]} features"
    if info.kind == "array":
        return f"holds arrays of the shape {'×'.join(map(str, info.shape))}"
    return f"holds {NEEDED[info.kind]}"


def _models_for(info: DatasetInfo) -> str:
    fitting = [
        name
        for name, model in BUILTIN_MODELS.items()
        if info.kind in model.KINDS and info.task in model.TASKS
    ]
    return " or ".join([", ".join(fitting[:-1]), fitting[-1]]) if len(fitting) > 1 else fitting[0]


def _poolings(model: CnnModel, info: DatasetInfo) -> Iterator[ParamError]:
    most = min(info.shape[1:]).bit_length() - 1
    if len(model.channels) > most:
        height, width = info.shape[1:]
        message = (
            f"{len(model.channels)} channels are as many poolings, each halving the image; {height}x{width} "
            f"pixels allow {most}."
        )
        yield ParamError("model.channels", message, "too_many_poolings")


def _heads(spec: JobSpec) -> Iterator[ParamError]:
    model = spec.model
    if isinstance(model, FtTransformerModel | TextClassifierModel) and model.width % model.heads:
        below, above = (model.heads * (model.width // model.heads + more) for more in (0, 1))
        nearest = f"{below} or {above}" if below else str(above)
        message = (
            f"The {model.heads} heads share the width evenly, and {model.width} is no multiple of "
            f"{model.heads}: take {nearest}, or other heads."
        )
        yield ParamError("model.width", message, "width_not_multiple_of_heads")


def _loss(spec: JobSpec, info: DatasetInfo) -> Iterator[ParamError]:
    fitting = LOSSES[info.task]
    if spec.loss not in fitting:
        message = f"{spec.loss} does not fit the {info.task} of {info.name}: take {' or '.join(fitting)}."
        yield ParamError("loss", message, "loss_does_not_fit_task")


def _class_weights(spec: JobSpec, info: DatasetInfo) -> Iterator[ParamError]:
    weights = spec.class_weights
    if weights is None:
        return
    if info.classes is None:
        message = f"{info.name} has no classes to weigh, its task is regression: leave class_weights out."
        yield ParamError("class_weights", message, "class_weights_without_classes")
    elif weights != "balanced":
        for name in weights:
            if name not in info.classes:
                yield _unknown_class(name, info.classes)


def _unknown_class(name: str, classes: tuple[str, ...]) -> ParamError:
    close = difflib.get_close_matches(name, classes, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")  # noqa: PLR2004
    return ParamError(
        f"class_weights.{name}", f"There is no class {name!r}.{guess} There are: {shown}.", "unknown_class"
    )


def _label_smoothing(spec: JobSpec, info: DatasetInfo) -> Iterator[ParamError]:
    if spec.label_smoothing and info.classes is None:
        message = f"{info.name} has no labels to smooth, its task is regression: leave label_smoothing out."
        yield ParamError("label_smoothing", message, "label_smoothing_without_classes")


def _metrics(spec: JobSpec, info: DatasetInfo) -> Iterator[ParamError]:
    fitting = EXTRA_METRICS[info.task]
    for number, name in enumerate(spec.metrics):
        if name not in fitting:
            message = f"{name} does not fit the {info.task} of {info.name}: take {', '.join(fitting)}."
            yield ParamError(f"metrics.{number}", message, "metric_does_not_fit_task")
        elif name in spec.metrics[:number]:
            yield ParamError(f"metrics.{number}", f"{name} is there twice: send it once.", "metric_twice")
    if spec.metrics and spec.validation is None:
        message = (
            "metrics are measured on the validation split, but validation is null: send one, or no metrics."
        )
        yield ParamError("metrics", message, "metrics_need_validation")


def _augmentation(spec: JobSpec, info: DatasetInfo) -> Iterator[ParamError]:
    if spec.augmentation is None:
        return
    if not info.is_image:
        message = f"Only images are augmented, but {info.name} {_what_it_is(info)}: leave augmentation out."
        yield ParamError("augmentation", message, "augmentation_needs_images")
    elif spec.augmentation.crop_padding >= min(info.shape[1:]):
        height, width = info.shape[1:]
        message = (
            f"Moved by {spec.augmentation.crop_padding} pixels, nothing may be left of an image of "
            f"{height}x{width}: take at most {min(height, width) - 1}."
        )
        yield ParamError("augmentation.crop_padding", message, "crop_padding_exceeds_image")


def of_plan(spec: JobSpec, info: DatasetInfo, plan: Plan) -> list[ParamError]:
    """What of a filled-in spec does not work out in its mini-batches."""
    model = spec.model
    is_open = spec.batch_size == "auto" and plan.train_samples >= MIN_BATCH_NORM_SAMPLES
    if is_open or plan.last_batch_size >= MIN_BATCH_NORM_SAMPLES or not isinstance(model, BuiltinModel):
        return []
    has_option = getattr(model, "batch_norm", False)
    if not has_option and not _always_normalises(model, info):
        return []
    message = _single_sample(plan, ", or batch_norm false" if has_option else "")
    return [ParamError("batch_size", message, "batch_norm_needs_two_samples")]


def _always_normalises(model: BuiltinModel, info: DatasetInfo) -> bool:
    parameters = model.model_dump()
    data = DataShape(info.kind, info.shape, info.outputs)
    return info.kind in model.KINDS and needs_two_samples(
        ModelConfig(parameters.pop("name"), data, parameters)
    )


def _single_sample(plan: Plan, way_out: str) -> str:
    why = "batch normalisation needs at least 2 samples in every mini-batch"
    if plan.train_samples < MIN_BATCH_NORM_SAMPLES:
        return f"There is only 1 training sample, but {why}: take more samples{way_out}."
    fitting = " or ".join(str(size) for size in _fitting_batch_sizes(plan))
    if plan.batch_size == 1:
        return f"The batch size is 1, but {why}: take {fitting}{way_out}."
    return (
        f"{plan.train_samples} training samples in mini-batches of {plan.batch_size} leave 1 sample over, "
        f"but {why}: take a batch size of {fitting}, or drop_last true."
    )


def _fitting_batch_sizes(plan: Plan) -> list[int]:
    """The nearest batch sizes below and above that leave no single sample over."""
    below = range(plan.batch_size - 1, 1, -1)
    above = range(plan.batch_size + 1, max(plan.train_samples, plan.batch_size + 1) + 1)
    nearest = (
        next((size for size in sizes if plan.train_samples % size != 1), None) for sizes in (below, above)
    )
    return [size for size in nearest if size is not None]
