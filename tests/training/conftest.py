"""Data and configurations that the engine's tests train on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from epochd.training.config import DataShape, ModelConfig, OptimizerConfig, TrainingConfig
from epochd.training.data import Samples, TrainingData

FEATURES, CLASSES, TARGETS = 12, 3, 2


def _clusters(random: np.random.Generator, count: int) -> Samples:
    y = random.integers(0, CLASSES, count)
    centers = np.eye(CLASSES, FEATURES) * 2
    return Samples((centers[y] + random.standard_normal((count, FEATURES))).astype(np.float32), y)


def _linear(random: np.random.Generator, count: int) -> Samples:
    x = random.standard_normal((count, FEATURES)).astype(np.float32)
    weights = np.arange(FEATURES * TARGETS).reshape(FEATURES, TARGETS) / 10 - 1
    return Samples(x, (x @ weights + 0.1 * random.standard_normal((count, TARGETS))).astype(np.float32))


@pytest.fixture
def classification() -> TrainingData:
    """150 training and 40 validation samples of three overlapping clusters."""
    random = np.random.default_rng(0)
    return TrainingData(_clusters(random, 150), _clusters(random, 40))


@pytest.fixture
def regression() -> TrainingData:
    """150 training and 40 validation samples of a noisy linear function with two targets."""
    random = np.random.default_rng(0)
    return TrainingData(_linear(random, 150), _linear(random, 40))


@pytest.fixture
def images() -> TrainingData:
    """60 training and 20 validation images of 3 by 8 by 8; the class is the brightest channel."""
    random = np.random.default_rng(0)

    def make(count: int) -> Samples:
        y = random.integers(0, CLASSES, count)
        x = random.standard_normal((count, 3, 8, 8)).astype(np.float32)
        x[np.arange(count), y] += 1
        return Samples(x, y)

    return TrainingData(make(60), make(20))


def _model(data: DataShape, name: str = "mlp", **fields: Any) -> ModelConfig:
    shape = {key: fields.pop(key) for key in ("input_shape", "categories", "vocabulary") if key in fields}
    parameters = {"hidden_sizes": (16,), **fields} if name == "mlp" else fields
    return ModelConfig(name, replace(data, **shape), parameters)


@pytest.fixture
def make_config() -> Callable[..., TrainingConfig]:
    """Configurations of a small classification (or ``task="regression"``), any field replaced by keyword.

    ``model`` may be a dict of name, shape and parameters, ``optimizer`` one of the fields to replace.
    """

    def make(**fields: Any) -> TrainingConfig:
        regression = fields.get("task") == "regression"
        outputs = TARGETS if regression else CLASSES
        optimizer = OptimizerConfig("adamw", learning_rate=0.01, weight_decay=0.01)
        model = _model(DataShape("table", (FEATURES,), outputs), **fields.pop("model", {}))
        optimizer = replace(optimizer, **fields.pop("optimizer", {}))
        fields = {"task": "classification", "epochs": 3, "batch_size": 32, **fields}
        if regression:
            fields.setdefault("loss", "mse")
        return TrainingConfig(model=model, optimizer=optimizer, **fields)

    return make
