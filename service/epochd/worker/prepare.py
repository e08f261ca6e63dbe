"""From a resolved spec to what the engine takes: configuration and arrays."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from epochd.contract.models import Model as ModelSpec
from epochd.contract.models import OperatorModel
from epochd.contract.spec import Augmentation, EarlyStopping, JobSpec
from epochd.contract.spec import Optimizer as OptimizerSpec
from epochd.contract.spec import Schedule as ScheduleSpec
from epochd.datasets import builtin, catalogue
from epochd.datasets.encoding import SEQUENCE_LENGTH, VOCABULARY_SIZE, Encoded, encoded
from epochd.datasets.info import DatasetInfo
from epochd.datasets.mapped import read_at_random
from epochd.datasets.preprocessing import Preprocessing, Reading
from epochd.datasets.preprocessing.matching import mismatches
from epochd.datasets.preprocessing.rows import ALL, Rows, count
from epochd.datasets.raw import RawData
from epochd.errors import DataError
from epochd.store.amendments import AmendmentRow
from epochd.training import operator_models
from epochd.training.amendments import Amendment
from epochd.training.config import (
    AugmentationConfig,
    DataShape,
    EarlyStoppingConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from epochd.training.data import DiskSamples, Samples, TrainingData, split_indices
from epochd.worker.dataset_files import OpenDataset, only_built_in

UNLIMITED: Final = 2**63


@dataclass(frozen=True, slots=True)
class Split:
    """Samples on one side of the split: ``rows`` of a data set, which is opened, or made, again when asked for."""

    open: Callable[[], RawData]
    rows: Rows


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Split and preprocessed samples, and what was fitted on the training split.

    ``digest`` is the data set's. ``identity`` names all data that determines the training: with it another data set
    that is validated on. ``encoded`` is the shape of one sample as the model gets it.
    """

    training: TrainingData
    preprocessing: Preprocessing
    info: DatasetInfo
    digest: str
    identity: str
    encoded: Encoded
    train: Split
    validation: Split | None


def prepare_data(
    spec: JobSpec,
    open_dataset: OpenDataset = only_built_in,
    *,
    memory_bytes: int = UNLIMITED,
    fitted: Preprocessing | None = None,
) -> PreparedData:
    """Open the data set, split it by the seed, and fit the preprocessing on the training split alone.

    With ``fitted`` that is used instead. Samples that would take more than ``memory_bytes`` are left on the disk and
    read as they are needed, if they are there. Raises ``DataError`` when the data cannot be trained on.
    """
    raw = _open(spec, open_dataset)
    assert spec.model is not None, "the spec is resolved"
    shape = encoded_for(spec.model, raw.info)
    train, held_back = _split(spec, raw)
    other = _validation_data(spec, raw.info, open_dataset)
    preprocessing = fitted or Preprocessing.fit(raw, train, shape)
    sides = [(raw, train)] if held_back is None else [(raw, train), (other or raw, held_back)]
    in_memory = sum(count(rows, len(data)) for data, rows in sides) * shape.bytes_per_sample <= memory_bytes
    samples = [_samples(preprocessing.reading(data), data, rows, in_memory=in_memory) for data, rows in sides]
    splits = [Split(_reopen(spec, data, open_dataset), rows) for data, rows in sides]
    return PreparedData(
        TrainingData(
            samples[0],
            samples[1] if samples[1:] else None,
            preprocessing.target_scale,
            preprocessing.target_mean,
        ),
        preprocessing,
        raw.info,
        raw.digest,
        raw.digest if other is None else _digest_of(raw, other),
        shape,
        splits[0],
        splits[1] if splits[1:] else None,
    )


def encoded_for(model: ModelSpec, info: DatasetInfo) -> Encoded:
    """The shape of one sample as this model gets it.

    Raises ``ModelError`` or ``InfrastructureError`` for an operator's model that fails or is not installed here.
    """
    return encoded(
        info,
        "codes" if _wants_codes(model, info) else "one_hot",
        vocabulary_size=_whole_number(model, "vocabulary_size", VOCABULARY_SIZE),
        sequence_length=_whole_number(model, "sequence_length", SEQUENCE_LENGTH),
    )


def _wants_codes(model: ModelSpec, info: DatasetInfo) -> bool:
    if info.kind != "table" or not info.columns:
        return False
    encoding = operator_models.encoding(model.name) if isinstance(model, OperatorModel) else model.ENCODING
    return encoding == "codes"


def _whole_number(model: ModelSpec, name: str, default: int) -> int:
    """A parameter that models of texts have; an operator's model may mean something else by it."""
    value = getattr(model, name, default)
    return value if isinstance(value, int) else default


def _open(spec: JobSpec, open_dataset: OpenDataset) -> RawData:
    if not isinstance(spec.dataset, str):
        return builtin.load(spec.dataset.model_dump()).raw
    return _open_named(spec.dataset, open_dataset)


def _open_named(name: str, open_dataset: OpenDataset) -> RawData:
    return builtin.load(name).raw if name in catalogue.names() else open_dataset(name)


def _reopen(spec: JobSpec, raw: RawData, open_dataset: OpenDataset) -> Callable[[], RawData]:
    """Keep what is mapped or bundled; made-up samples, which fill memory, are made again."""
    if raw.info.name == catalogue.SYNTHETIC and not isinstance(spec.dataset, str):
        return lambda: _open(spec, open_dataset)
    return lambda: raw


def _split(spec: JobSpec, raw: RawData) -> tuple[Rows, Rows | None]:
    """The rows that are trained and validated on; the latter are of the other data set where there is one."""
    if spec.validation is None:
        return ALL, None
    if spec.validation.dataset is not None:
        return ALL, ALL
    return split_indices(raw.y, raw.info.task, spec.validation.fraction or 0.0, spec.seed)


def _validation_data(spec: JobSpec, info: DatasetInfo, open_dataset: OpenDataset) -> RawData | None:
    """The data set that is validated on when it is another one. Raises ``DataError`` when it does not fit."""
    if spec.validation is None or spec.validation.dataset is None:
        return None
    other = _open_named(spec.validation.dataset, open_dataset)
    for mismatch in mismatches(info, other.info):
        raise DataError(mismatch)
    return other


def _samples(reading: Reading, raw: RawData, rows: Rows, *, in_memory: bool) -> Samples | DiskSamples:
    y = reading.targets(rows)
    y = y if y.flags.writeable else np.array(y)  # torch takes no array that is shared or mapped
    if in_memory or not _is_mapped(raw):
        return Samples(reading.apply(rows), y)
    read_at_random(raw)
    dtype = reading.dtype

    def take(indices: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
        return reading.apply(indices if isinstance(rows, slice) else rows[indices])

    return DiskSamples(take, y, reading.shape, dtype)


def _is_mapped(raw: RawData) -> bool:
    return any(isinstance(part, np.memmap) for part in raw.parts.values())


def _digest_of(*raws: RawData) -> str:
    digests = " ".join(raw.digest for raw in raws)
    return f"sha256:{hashlib.sha256(digests.encode()).hexdigest()}"


def training_config(spec: JobSpec, info: DatasetInfo, device: str) -> TrainingConfig:
    """Translate a resolved spec for the engine. ``device`` is the slot's; a spec that names one wins."""
    assert spec.model is not None, "the spec is resolved"
    assert spec.loss is not None, "the spec is resolved"
    assert spec.batch_size != "auto", "it was measured before"
    return TrainingConfig(
        task=info.task,
        model=_model(spec.model, info),
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        optimizer=_optimizer(spec.optimizer),
        schedule=_schedule(spec.schedule),
        loss=spec.loss,
        class_weights=_class_weights(spec, info),
        label_smoothing=spec.label_smoothing,
        metrics=tuple(spec.metrics),
        augmentation=_augmentation(spec.augmentation),
        validate_every_epochs=spec.validation.every_epochs if spec.validation else 1,
        early_stopping=_early_stopping(spec.early_stopping),
        seed=spec.seed,
        device=device_of(spec, device),
        # bf16 was measured slower than fp32 on CPU, and small models gain nothing from it elsewhere.
        precision="fp32" if spec.precision == "auto" else spec.precision,
        gradient_clip_norm=spec.gradient_clip_norm,
        drop_last=spec.drop_last,
        max_runtime_seconds=spec.max_runtime_seconds,
    )


def device_of(spec: JobSpec, slot: str) -> str:
    """Choose the device: the slot's for ``auto``, and for ``cuda`` when the slot has one."""
    if spec.device == "auto" or (spec.device == "cuda" and slot.startswith("cuda")):
        return slot
    return spec.device


def amendment(row: AmendmentRow) -> Amendment:
    """Translate an amendment for the engine; one that took effect before does so again after the same iteration."""
    value = row.value
    if row.field == "early_stopping" and value is not None:
        value = _early_stopping(EarlyStopping.model_validate(value))
    return Amendment(row.number, row.field, value, row.iteration)


def _model(spec: ModelSpec, info: DatasetInfo) -> ModelConfig:
    parameters: dict[str, Any] = spec.model_dump()
    return ModelConfig(parameters.pop("name"), _data_shape(spec, info), parameters)


def _data_shape(spec: ModelSpec, info: DatasetInfo) -> DataShape:
    shape = encoded_for(spec, info)
    return DataShape(info.kind, shape.input_shape, info.outputs, shape.categories, shape.vocabulary)


def _class_weights(spec: JobSpec, info: DatasetInfo) -> Literal["balanced"] | tuple[float, ...] | None:
    """In the order of the classes; those that are not named count 1."""
    given = spec.class_weights
    if given is None or given == "balanced":
        return given
    assert info.classes is not None, "the spec is resolved"
    return tuple(given.get(name, 1.0) for name in info.classes)


def _augmentation(spec: Augmentation | None) -> AugmentationConfig | None:
    return None if spec is None else AugmentationConfig(**spec.model_dump())


def _optimizer(spec: OptimizerSpec) -> OptimizerConfig:
    parameters = spec.model_dump()
    if "betas" in parameters:
        parameters["betas"] = tuple(parameters["betas"])
    return OptimizerConfig(**parameters)


def _schedule(spec: ScheduleSpec) -> ScheduleConfig:
    return ScheduleConfig(**spec.model_dump(exclude_none=True))


def _early_stopping(spec: EarlyStopping | None) -> EarlyStoppingConfig | None:
    return EarlyStoppingConfig(**spec.model_dump()) if spec is not None else None
