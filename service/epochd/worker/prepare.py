"""From a resolved spec to what the engine takes: configuration and arrays."""

from dataclasses import dataclass
from typing import Any

from epochd.contract.models import Model as ModelSpec
from epochd.contract.spec import EarlyStopping, JobSpec
from epochd.contract.spec import Optimizer as OptimizerSpec
from epochd.contract.spec import Schedule as ScheduleSpec
from epochd.datasets import builtin
from epochd.datasets.info import DatasetInfo
from epochd.datasets.preprocessing import Preprocessing
from epochd.store.amendments import AmendmentRow
from epochd.training.amendments import Amendment
from epochd.training.config import (
    EarlyStoppingConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from epochd.training.data import Samples, TrainingData, split_indices


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Split and preprocessed samples, and what was fitted on the training split."""

    training: TrainingData
    preprocessing: Preprocessing
    info: DatasetInfo
    digest: str


def prepare_data(spec: JobSpec) -> PreparedData:
    """Load the data set, split it by the seed, and fit the preprocessing on the training split alone.

    Raises ``DataError`` when the data cannot be trained on.
    """
    dataset = spec.dataset if isinstance(spec.dataset, str) else spec.dataset.model_dump()
    arrays = builtin.load(dataset)
    if spec.validation is None:
        preprocessing = Preprocessing.fit(arrays.info, arrays.x, arrays.y)
        training = TrainingData(Samples(*preprocessing.apply(arrays.x, arrays.y)), None)
        return PreparedData(training, preprocessing, arrays.info, arrays.digest)
    train, held_back = split_indices(arrays.y, arrays.info.task, spec.validation.fraction or 0.0, spec.seed)
    preprocessing = Preprocessing.fit(arrays.info, arrays.x[train], arrays.y[train])
    training = TrainingData(
        Samples(*preprocessing.apply(arrays.x[train], arrays.y[train])),
        Samples(*preprocessing.apply(arrays.x[held_back], arrays.y[held_back])),
    )
    return PreparedData(training, preprocessing, arrays.info, arrays.digest)


def training_config(spec: JobSpec, info: DatasetInfo, device: str) -> TrainingConfig:
    """Translate a resolved spec for the engine. ``device`` is the slot's; a spec that names one wins."""
    assert spec.model is not None, "the spec is resolved"
    assert spec.loss is not None, "the spec is resolved"
    return TrainingConfig(
        task=info.task,
        model=_model(spec.model, info),
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        optimizer=_optimizer(spec.optimizer),
        schedule=_schedule(spec.schedule),
        loss=spec.loss,
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
    parameters: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in spec.model_dump().items()
    }
    return ModelConfig(input_shape=info.shape, outputs=info.outputs, **parameters)


def _optimizer(spec: OptimizerSpec) -> OptimizerConfig:
    parameters = spec.model_dump()
    if "betas" in parameters:
        parameters["betas"] = tuple(parameters["betas"])
    return OptimizerConfig(**parameters)


def _schedule(spec: ScheduleSpec) -> ScheduleConfig:
    return ScheduleConfig(**spec.model_dump(exclude_none=True))


def _early_stopping(spec: EarlyStopping | None) -> EarlyStoppingConfig | None:
    return EarlyStoppingConfig(**spec.model_dump()) if spec is not None else None
